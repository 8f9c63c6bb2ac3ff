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
	if symbol[1] == 'Z' && !isRustLegacy(symbol) {
		if name, ok := simpleCPPName(symbol); ok {
			return name
		}
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
	mangled, clone := cutClone(symbol)
	name, err := demangle.ToString(mangled, options...)
	if err != nil || name == "" {
		return symbol
	}
	return name + clone
}

// cutClone separates a mangled name from what compilers append to the names of a
// function's clones and parts (".part.0", ".cold"). The hash that ThinLTO appends
// (".llvm.123") says nothing and is left out.
func cutClone(symbol string) (mangled, clone string) {
	from := 0
	if isRustLegacy(symbol) {
		from = strings.LastIndex(symbol, "17h") // names have dots before the hash
	}
	i := strings.IndexByte(symbol[from:], '.')
	if i < 0 {
		return symbol, ""
	}
	mangled, clone = symbol[:from+i], symbol[from+i:]
	if at := strings.Index(clone, ".llvm."); at >= 0 {
		rest := strings.TrimLeft(clone[at+len(".llvm."):], "0123456789ABCDEFabcdef")
		clone = clone[:at] + rest
	}
	return mangled, clone
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
				if f.Name == "" {
					f.Name = goName(f.Symbol)
				}
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

// nameOverloads gives C++ functions that share their short name the long one,
// if it tells them apart: those of the variants of a constructor do not.
func nameOverloads(funcs []Function) {
	first := make(map[string]int32, len(funcs)/4)
	groups := make(map[string][]int32)
	for i := range funcs {
		if funcs[i].Lang != LangCPP {
			continue
		}
		j, seen := first[funcs[i].Name]
		switch group := groups[funcs[i].Name]; {
		case !seen:
			first[funcs[i].Name] = int32(i)
		case group == nil:
			groups[funcs[i].Name] = []int32{j, int32(i)}
		default:
			groups[funcs[i].Name] = append(group, int32(i))
		}
	}
	list := make([][]int32, 0, len(groups))
	for _, group := range groups {
		list = append(list, group)
	}
	eachChunk(len(list), func(lo, hi int) {
		for _, group := range list[lo:hi] {
			long := make([]string, len(group))
			differ := false
			for i, at := range group {
				long[i] = demangleFull(funcs[at].Symbol)
				differ = differ || long[i] != long[0]
			}
			for i, at := range group {
				if differ {
					funcs[at].Name = long[i]
				}
			}
		}
	})
}

// eachChunk runs work over [0, n) in parallel chunks.
func eachChunk(n int, work func(lo, hi int)) {
	const chunk = 512
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
