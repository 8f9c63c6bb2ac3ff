package symbolizer

import (
	"cmp"
	"debug/elf"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
)

// Functions returns the functions of the file sorted by address, one for each
// address, with the other names of the address as aliases. The slice is shared:
// do not change it. It is made by the first call.
//
// Sizes that the symbol table leaves out come from the unwind table, else they
// reach to the next function. Code that only the unwind table knows is named
// "module+0xoffset", the offset counting from the module's load address.
//
// An error tells that a table could not be read; the functions of the others
// come with it. A file without any table has no functions and no error.
func (b *Binary) Functions() ([]Function, error) {
	b.funcsOnce.Do(func() { b.funcs, b.funcsErr = b.readFunctions() })
	return b.funcs, b.funcsErr
}

// Lookup returns the function that has the virtual address, and how far into it
// the address is; nil where there is none.
func (b *Binary) Lookup(addr uint64) (fn *Function, off uint64) {
	funcs, _ := b.Functions()
	i := sort.Search(len(funcs), func(i int) bool { return funcs[i].Addr > addr }) - 1
	// A label or a small function may lie inside a larger one: look back a bit.
	for back := 0; i >= 0 && back < 8; i, back = i-1, back+1 {
		if f := &funcs[i]; addr-f.Addr < f.Size || addr == f.Addr {
			return f, addr - f.Addr
		}
	}
	return nil, 0
}

func (b *Binary) readFunctions() (funcs []Function, err error) {
	defer guard(&err, b.Path+": functions")
	var errs []error
	code, plt := b.codeRanges()

	syms, err := b.namedSymbols(code)
	if err != nil {
		errs = append(errs, err)
	}
	goFuncs, goText, err := b.readGoFunctions(syms)
	if err != nil {
		errs = append(errs, err)
	}
	frames, err := b.Frames()
	if err != nil {
		errs = append(errs, err)
	}
	spans := sortedSpans(frames)

	funcs = mergeSymbols(syms)
	funcs = mergeGoFunctions(funcs, goFuncs)
	b.fillSizes(funcs, spans, code)
	funcs = dropInnerLabels(funcs)
	funcs = b.addUnnamed(funcs, spans, code, plt, goText)
	markFragments(funcs, spans, frames)
	b.fillNames(funcs, goText)
	for i := range funcs {
		funcs[i].Offset, _ = b.AddrToOffset(funcs[i].Addr)
	}
	return funcs, errors.Join(errs...)
}

// frameSpan is the range of an unwind entry. Without pointers it sorts several
// times faster than the entry itself.
type frameSpan struct {
	start, size uint64
	index       int // in the file's order
}

func sortedSpans(frames []FDE) []frameSpan {
	spans := make([]frameSpan, len(frames))
	for i := range frames {
		spans[i] = frameSpan{frames[i].Start, frames[i].Size, i}
	}
	slices.SortFunc(spans, func(a, b frameSpan) int {
		return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.index, b.index))
	})
	return spans
}

// readGoFunctions returns the functions of the Go function table and the range
// of Go text.
func (b *Binary) readGoFunctions(syms []symbol) ([]Function, addrRange, error) {
	t, err := b.gopclntab()
	if err != nil || t == nil {
		// Whatever the linker's marks enclose is Go text, even if the table is of
		// a version that we cannot read.
		return nil, goTextMarks(syms), err
	}
	text := addrRange{t.textStart, t.textStart}
	funcs := t.goFunctions()
	if n := len(funcs); n > 0 {
		text.end = funcs[n-1].Addr + funcs[n-1].Size
	}
	return funcs, text, nil
}

func goTextMarks(syms []symbol) (text addrRange) {
	for i := range syms {
		switch syms[i].name {
		case "runtime.text":
			text.start = syms[i].addr
		case "runtime.etext":
			text.end = syms[i].addr
		}
	}
	if text.end < text.start {
		return addrRange{}
	}
	return text
}

// isGoTextMark tells the linker's marks of the text's bounds from functions:
// runtime.text, runtime.etext, and runtime.text.1 and so on in very large files.
func isGoTextMark(name string) bool {
	return name == "runtime.text" || name == "runtime.etext" || strings.HasPrefix(name, "runtime.text.")
}

// mergeSymbols makes one function of all names of an address. The name with the
// best source wins, see compareNames.
func mergeSymbols(syms []symbol) []Function {
	// Sorting keys instead of symbols avoids moving and scanning pointers.
	type key struct {
		addr  uint64
		index int32
	}
	keys := make([]key, len(syms))
	for i := range syms {
		keys[i] = key{syms[i].addr, int32(i)}
	}
	slices.SortFunc(keys, func(a, b key) int {
		return cmp.Or(cmp.Compare(a.addr, b.addr), cmp.Compare(a.index, b.index))
	})
	funcs := make([]Function, 0, len(syms))
	var names []*symbol
	for i := 0; i < len(keys); {
		names = names[:0]
		addr := keys[i].addr
		for ; i < len(keys) && keys[i].addr == addr; i++ {
			names = append(names, &syms[keys[i].index])
		}
		slices.SortFunc(names, compareNames)
		if f := mergeNames(names); f.Symbol != "" {
			funcs = append(funcs, f)
		}
	}
	return funcs
}

// mergeNames makes a function of the sorted names of its address. Symbol is
// empty if there is no function but only a mark.
func mergeNames(names []*symbol) Function {
	first := names[0]
	if isGoTextMark(first.name) {
		return Function{}
	}
	f := Function{Symbol: first.name, Addr: first.addr, Size: first.size, Source: first.source, IFunc: first.ifunc}
	if first.untyp {
		f.Lang = LangAsm
	}
	for _, alias := range names[1:] {
		f.Size = max(f.Size, alias.size)
		f.IFunc = f.IFunc || alias.ifunc
		if alias.name != f.Symbol && !isGoTextMark(alias.name) && len(f.Aliases) < maxAliases {
			f.Aliases = append(f.Aliases, alias.name)
		}
	}
	slices.Sort(f.Aliases)
	f.Aliases = slices.Compact(f.Aliases)
	return f
}

// maxAliases bounds the names kept for one address. Identical code folding gives
// some hundreds to trivial functions of large C++ programs.
const maxAliases = 4096

// compareNames orders the names of one address, the one to show first.
func compareNames(a, b *symbol) int {
	if isGoTextMark(a.name) != isGoTextMark(b.name) {
		if isGoTextMark(b.name) {
			return -1
		}
		return 1
	}
	if a.untyp != b.untyp {
		if b.untyp {
			return -1
		}
		return 1
	}
	// "write" rather than "__write".
	if c := cmp.Compare(underscores(a.name), underscores(b.name)); c != 0 {
		return c
	}
	if c := cmp.Compare(a.source, b.source); c != 0 {
		return c
	}
	if c := cmp.Compare(bindRank(a.bind), bindRank(b.bind)); c != 0 {
		return c
	}
	if c := cmp.Compare(len(a.name), len(b.name)); c != 0 {
		return c
	}
	return cmp.Compare(a.name, b.name)
}

// underscores counts the leading underscores that are not part of a mangling.
func underscores(name string) int {
	if isMangled(name) {
		return 0
	}
	return len(name) - len(strings.TrimLeft(name, "_"))
}

func bindRank(b elf.SymBind) int {
	switch b {
	case elf.STB_GLOBAL:
		return 0
	case elf.STB_WEAK:
		return 1
	}
	return 2
}

// mergeGoFunctions adds what the Go function table knows. Names of the symbol
// table stay: they spell out type arguments where the table has "[...]".
func mergeGoFunctions(funcs, goFuncs []Function) []Function {
	if len(goFuncs) == 0 {
		return funcs
	}
	out := make([]Function, 0, max(len(funcs), len(goFuncs)))
	for i, j := 0, 0; i < len(funcs) || j < len(goFuncs); {
		switch {
		case j == len(goFuncs) || i < len(funcs) && funcs[i].Addr < goFuncs[j].Addr:
			out = append(out, funcs[i])
			i++
		case i == len(funcs) || goFuncs[j].Addr < funcs[i].Addr:
			out = append(out, goFuncs[j])
			j++
		default:
			f := funcs[i]
			f.Lang, f.ABI0 = LangGo, goFuncs[j].ABI0 || strings.HasSuffix(f.Symbol, goABI0Suffix)
			if strings.HasSuffix(f.Symbol, goABI0Suffix) {
				f.Name = goName(goFuncs[j].Symbol) // with the suffix only if it tells two apart
			}
			if f.Size == 0 {
				f.Size = goFuncs[j].Size
			}
			out = append(out, f)
			i++
			j++
		}
	}
	return out
}

// fillSizes derives unknown sizes: the unwind entry that starts at the function,
// else the space up to the next function, unwind entry or end of section. Sizes
// that pass the section's end are cut.
func (b *Binary) fillSizes(funcs []Function, frames []frameSpan, code []addrRange) {
	frame := 0
	for i := range funcs {
		f := &funcs[i]
		end, ok := rangeEnd(code, f.Addr)
		if !ok {
			continue
		}
		if f.Size > end-f.Addr {
			f.Size = end - f.Addr
		}
		if f.Size != 0 {
			continue
		}
		for frame < len(frames) && frames[frame].start < f.Addr {
			frame++
		}
		if frame < len(frames) && frames[frame].start == f.Addr {
			f.Size = min(frames[frame].size, end-f.Addr)
			continue
		}
		if frame < len(frames) {
			end = min(end, frames[frame].start)
		}
		if i+1 < len(funcs) {
			end = min(end, funcs[i+1].Addr)
		}
		f.Size = end - f.Addr
	}
}

// dropInnerLabels removes untyped symbols that lie inside a function: they mark
// places in assembly, not functions.
func dropInnerLabels(funcs []Function) []Function {
	out := funcs[:0]
	var end uint64
	for _, f := range funcs {
		if f.Lang == LangAsm {
			if f.Addr < end {
				continue
			}
		} else {
			end = max(end, f.Addr+f.Size)
		}
		out = append(out, f)
	}
	return out
}

// addUnnamed adds the unwind entries that start outside of all functions.
// frames are sorted by address.
func (b *Binary) addUnnamed(funcs []Function, frames []frameSpan, code, plt []addrRange, goText addrRange) []Function {
	var extra []Function
	var covered uint64 // end of the code that named functions before frame i take
	base := b.base()
	module := b.moduleName()
	next := 0
	for i := range frames {
		start := frames[i].start
		for next < len(funcs) && funcs[next].Addr <= start {
			covered = max(covered, funcs[next].Addr+max(funcs[next].Size, 1))
			next++
		}
		if start < covered || inRanges(plt, start) || start >= goText.start && start < goText.end {
			continue
		}
		end, ok := rangeEnd(code, start)
		if !ok {
			continue
		}
		size := min(frames[i].size, end-start)
		extra = append(extra, Function{
			Name:   fmt.Sprintf("%s+%#x", module, start-base),
			Addr:   start,
			Size:   size,
			Source: SourceUnwindTable,
		})
		covered = start + size
	}
	if len(extra) == 0 {
		return funcs
	}
	funcs = append(funcs, extra...)
	slices.SortFunc(funcs, func(a, b Function) int { return cmp.Compare(a.Addr, b.Addr) })
	return funcs
}

// markFragments sets Fragment by name and by unwind rules.
func markFragments(funcs []Function, spans []frameSpan, frames []FDE) {
	frame := 0
	for i := range funcs {
		f := &funcs[i]
		f.Fragment = isColdPart(f.Symbol)
		for frame < len(spans) && spans[frame].start < f.Addr {
			frame++
		}
		if frame < len(spans) && spans[frame].start == f.Addr && frames[spans[frame].index].startsInside() {
			f.Fragment = true
		}
	}
}

// isColdPart recognizes the names that gcc and LLVM give to the cold part of a
// split function: "f.cold", "f.cold.12".
func isColdPart(symbol string) bool {
	i := strings.LastIndex(symbol, ".cold")
	if i < 0 {
		return false
	}
	rest := symbol[i+len(".cold"):]
	return rest == "" || rest[0] == '.' && strings.Trim(rest[1:], "0123456789") == ""
}
