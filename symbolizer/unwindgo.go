package symbolizer

import (
	"debug/elf"
	"strings"
)

// addDebugFrames adds what .debug_frame tells of code that .eh_frame does not:
// compilers write it for code without exception tables, and for all code with
// -fno-asynchronous-unwind-tables.
func (b *Binary) addDebugFrames(u *unwindBuilder) error {
	if b.goSection() != nil {
		return nil // Go's has what its function table tells better
	}
	known := u.covered()
	for _, file := range []*Binary{b, b.debugFile()} {
		if file == nil || file.Arch != b.Arch {
			continue
		}
		s := file.section(".debug_frame")
		if s == nil {
			continue
		}
		data, err := file.sectionData(s, maxSymbolSection)
		if err != nil {
			return err
		}
		u.table.EHFrameBytes += len(data)
		frames, err := ParseDebugFrame(data, EHFrameLayout{Order: file.byteOrder(), PointerSize: int(file.pointerSize())})
		u.addMissing(frames, known)
		return err
	}
	return nil
}

// Flags of Go functions (internal/abi.FuncFlag).
const (
	goTopFrame = 1 << 0 // the outermost function of its stack
	goSPWrite  = 1 << 1 // writes to SP what the table cannot tell
)

// addGoRows adds rows from the function table of Go, which knows for each
// instruction how far the stack pointer is below its value at entry.
func (b *Binary) addGoRows(u *unwindBuilder) error {
	t, err := b.gopclntab()
	if t == nil || err != nil {
		return err
	}
	for i := range t.nfunc {
		f, ok := t.function(i)
		if !ok || f.end == f.entry || u.full() {
			continue
		}
		first := u.begin()
		if b.Arch == elf.EM_AARCH64 {
			t.arm64Rows(u, &f)
		} else {
			t.amd64Rows(u, &f)
		}
		u.end(first, f.entry, f.end)
	}
	return nil
}

// fpRule is the rule of code that has set its frame pointer up, whatever the
// stack pointer is.
func fpRule(arch elf.Machine) UnwindRule {
	r := UnwindRule{Kind: UnwindCFA, Reg: amd64FP, Offset: 16, Second: -8}
	if arch == elf.EM_AARCH64 {
		r = UnwindRule{Kind: UnwindCFA, Reg: arm64FP, Offset: 16}
		r.Saved[0], r.Saved[1] = -4, -2
		return r
	}
	r.Saved[1] = -4
	return r
}

// special returns the rule of the functions of the runtime that leave the stack
// they were called on.
func (t *goTable) special(u *unwindBuilder, f *goFunc) (r UnwindRule, ok bool) {
	name := strings.TrimSuffix(t.name(f.nameOff), ".abi0")
	switch {
	case name == "runtime.sigreturn__sigaction" && u.arch == elf.EM_X86_64:
		return UnwindRule{Kind: UnwindSignal, Reg: amd64SP, Flags: UnwindExact}, true
	case name == "runtime.morestack":
		return UnwindRule{Kind: UnwindGoStack, Flags: UnwindExact}, true
	case name == "runtime.sigtramp": // the outermost for Go, and called by the kernel
		return r, false
	case name == "runtime.mcall", name == "runtime.gogo", f.flag&goTopFrame != 0:
		// mcall runs the scheduler, on behalf of no goroutine.
		return UnwindRule{Kind: UnwindEnd}, true
	case f.flag&goSPWrite != 0:
		return fpRule(u.arch), true
	}
	return r, false
}

// amd64Rows adds the rows of one function. The return address is above the
// frame; the caller's frame pointer is saved right below it as soon as there is
// a frame.
func (t *goTable) amd64Rows(u *unwindBuilder, f *goFunc) {
	special, isSpecial := t.special(u, f)
	if isSpecial && special.Kind != UnwindCFA {
		u.add(f.entry, special)
		return
	}
	exact := uint8(0)
	if t.name(f.nameOff) == "runtime.asyncPreempt" {
		exact = UnwindExact // called between any two instructions
	}
	t.eachPCValue(f.pcsp, f, func(start, end uint64, depth int32) bool {
		if depth < 0 || u.full() {
			return false
		}
		r := UnwindRule{Kind: UnwindCFA, Reg: amd64SP, Flags: exact, Offset: depth + 8, Second: -8}
		if depth >= 8 {
			r.Saved[1] = -4 // CFA - 16
			if isSpecial {
				r = special
			}
		}
		u.add(start, r)
		return true
	})
}

// arm64Rows adds the rows of one function. The return address is saved at the
// frame's lower end and the frame pointer below it, outside of the frame
// (cmd/internal/obj/arm64: the prologue stores both before it moves SP on).
func (t *goTable) arm64Rows(u *unwindBuilder, f *goFunc) {
	special, isSpecial := t.special(u, f)
	if isSpecial && special.Kind != UnwindCFA {
		u.add(f.entry, special)
		return
	}
	t.eachPCValue(f.pcsp, f, func(start, end uint64, depth int32) bool {
		if depth < 0 || u.full() {
			return false
		}
		r := UnwindRule{Kind: UnwindCFA, Reg: arm64SP, Offset: depth}
		if depth > 0 {
			words := depth / 4
			if depth%8 != 0 || words > 1<<13 {
				r = UnwindRule{} // frames beyond what a rule holds: frame pointers
			} else {
				r.Saved[1] = int16(-words)     // return address at sp
				r.Saved[0] = int16(-words - 2) // frame pointer at sp - 8
			}
			if isSpecial {
				r = UnwindRule{}
			}
		}
		u.add(start, r)
		return true
	})
}
