package symbolizer

import (
	"runtime"
	"strings"
	"sync"

	"github.com/ianlancetaylor/demangle"
)

// isMangled reports whether a linkage name looks like C++'s or Rust's mangling.
func isMangled(symbol string) bool {
	return len(symbol) > 2 && symbol[0] == '_' && (symbol[1] == 'Z' || symbol[1] == 'R' && symbolByteV0(symbol[2]))
}

// symbolByteV0 reports whether c can follow "_R" in Rust's v0 mangling: a path's
// tag, or the digits of a version.
func symbolByteV0(c byte) bool {
	return c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// isRustLegacy recognizes Rust's older mangling, which looks like C++'s: the last
// element is a hash, "17h" and 16 hexadecimal digits.
func isRustLegacy(symbol string) bool {
	i := strings.LastIndex(symbol, "17h")
	if i < 0 || len(symbol) < i+3+16+1 || symbol[i+3+16] != 'E' {
		return false
	}
	return strings.Trim(symbol[i+3:i+3+16], "0123456789abcdef") == ""
}

// language guesses the source language from a linkage name that is no plain C
// identifier.
func language(symbol string) Lang {
	switch {
	case !isMangled(symbol):
		return LangUnknown
	case symbol[1] == 'R', isRustLegacy(symbol):
		return LangRust
	}
	return LangCPP
}

// isCIdentifier reports whether name could be a C function's, clone suffixes
// ("f.part.0") included.
func isCIdentifier(name string) bool {
	for i := 0; i < len(name); i++ {
		c := name[i]
		switch {
		case c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z':
		case i > 0 && (c >= '0' && c <= '9' || c == '.' || c == '$'):
		default:
			return false
		}
	}
	return true
}

// maxDemangled bounds what demangling one name may produce, as a power of two:
// back references let a short name expand exponentially.
const maxDemangled = 14

// Demangle returns the readable form of a linkage name: C++ and Rust names with
// their template arguments but without parameters and hashes, clone suffixes as
// the compiler wrote them ("ns::f.cold"), Go names with escapes resolved. Other
// names are returned as they are.
func Demangle(symbol string) string {
	if !isMangled(symbol) {
		return symbol
	}
	return demangleWith(symbol, demangle.NoParams, demangle.NoEnclosingParams, demangle.MaxLength(maxDemangled))
}

// demangleFull is Demangle with the parameters that tell overloads apart.
func demangleFull(symbol string) string {
	return demangleWith(symbol, demangle.MaxLength(maxDemangled))
}

func demangleWith(symbol string, options ...demangle.Option) (name string) {
	defer func() {
		if recover() != nil { // a name that the demangler has not been made for
			name = symbol
		}
	}()
	// ThinLTO adds a hash to what it makes visible between modules.
	if i := strings.Index(symbol, ".llvm."); i > 0 {
		symbol = symbol[:i]
	}
	name, err := demangle.ToString(symbol, options...)
	if err != nil {
		return symbol
	}
	// "f [clone .part.0] [clone .cold]" is a trap in globs.
	for {
		i := strings.LastIndex(name, " [clone .")
		if i < 0 || !strings.HasSuffix(name, "]") {
			return name
		}
		name = name[:i] + name[i+len(" [clone "):len(name)-1]
	}
}

// fillNames sets Name, Lang and Package. Demangling dominates the reading of
// large C++ programs, so it runs on all processors.
func (b *Binary) fillNames(funcs []Function, goText addrRange) {
	eachChunk(len(funcs), func(lo, hi int) {
		for i := lo; i < hi; i++ {
			f := &funcs[i]
			if f.Source == SourceUnwindTable {
				continue
			}
			if f.Lang == LangGo || f.Addr >= goText.start && f.Addr < goText.end {
				f.Lang = LangGo
				f.Name = goName(f.Symbol)
				f.Package = goPackage(f.Symbol)
				continue
			}
			f.Name = Demangle(f.Symbol)
			switch {
			case f.Lang != LangUnknown:
			case f.Name == f.Symbol && isCIdentifier(f.Symbol):
				f.Lang = LangC // also for what only looked mangled
			default:
				f.Lang = language(f.Symbol)
			}
		}
	})
	nameOverloads(funcs)
}

// nameOverloads gives C++ functions that share their short name the long one.
func nameOverloads(funcs []Function) {
	first := make(map[string]int32, len(funcs)/4)
	ambiguous := make(map[int32]struct{})
	for i := range funcs {
		if funcs[i].Lang != LangCPP {
			continue
		}
		if j, seen := first[funcs[i].Name]; seen {
			ambiguous[j] = struct{}{}
			ambiguous[int32(i)] = struct{}{}
			continue
		}
		first[funcs[i].Name] = int32(i)
	}
	if len(ambiguous) == 0 {
		return
	}
	list := make([]int32, 0, len(ambiguous))
	for i := range ambiguous {
		list = append(list, i)
	}
	eachChunk(len(list), func(lo, hi int) {
		for _, i := range list[lo:hi] {
			funcs[i].Name = demangleFull(funcs[i].Symbol)
		}
	})
}

// eachChunk runs work over [0, n) in parallel chunks.
func eachChunk(n int, work func(lo, hi int)) {
	const chunk = 2048
	if n <= chunk {
		work(0, n)
		return
	}
	var wg sync.WaitGroup
	chunks := make(chan int, n/chunk+1)
	for lo := 0; lo < n; lo += chunk {
		chunks <- lo
	}
	close(chunks)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for lo := range chunks {
				work(lo, min(lo+chunk, n))
			}
		})
	}
	wg.Wait()
}
