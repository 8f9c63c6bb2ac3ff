package symbolizer

import (
	"bytes"
	"cmp"
	"debug/elf"
	"encoding/binary"
	"slices"

	"golang.org/x/arch/x86/x86asm"
)

// Code without unwind information is read instruction by instruction: C
// libraries such as musl, and what was written by hand. A function whose stack
// pointer is followed along every path to its returns, where it stands again at
// the return address with all registers restored, has rules as exact as any
// compiler's; one that is not followed so has none.

// maxScan bounds the code of a file that is read so.
const maxScan = 8 << 20

// addScanned adds rows for functions that nothing else tells about (x86-64).
func (b *Binary) addScanned(u *unwindBuilder) {
	if b.Arch != elf.EM_X86_64 || b.goSection() != nil {
		return
	}
	left := maxScan
	for _, area := range b.bareCode(u.covered()) {
		size := area.end - area.start
		if size > uint64(left) {
			return
		}
		left -= int(size)
		code := make([]byte, size)
		if b.readAddr(code, area.start) != nil {
			continue
		}
		if isPadding(code) {
			continue
		}
		starts := b.functionStarts(area)
		if !isPadding(code[:min(16, len(code))]) && (len(starts) == 0 || starts[0].addr > area.start) {
			// The rest of a function that its unwind information leaves out, as
			// glibc's clone does around its system call.
			starts = slices.Insert(starts, 0, functionStart{addr: area.start})
		}
		for i, start := range starts {
			end := area.end
			if i+1 < len(starts) {
				end = starts[i+1].addr
			}
			if u.full() {
				return
			}
			scanFunction(u, code[start.addr-area.start:end-area.start], start, start.addr == b.file.Entry)
		}
	}
}

// functionStart is where a function seems to begin.
type functionStart struct {
	addr  uint64
	named bool // by a symbol: it is certainly one
}

// isPadding reports whether there are only instructions that do nothing.
func isPadding(code []byte) bool {
	for len(code) > 0 {
		n := 1
		if c := code[0]; c != 0x90 && c != 0xcc && c != 0 {
			if n = nopSize(code); n == 0 {
				return false
			}
		}
		code = code[n:]
	}
	return true
}

// bareCode returns the ranges of executable sections that are in none of the
// sorted ranges.
func (b *Binary) bareCode(covered []addrRange) []addrRange {
	var areas []addrRange
	const padding = 4 // the shortest function worth a rule
	for _, s := range b.file.Sections {
		if s.Type != elf.SHT_PROGBITS || s.Flags&elf.SHF_EXECINSTR == 0 || s.Addr+s.Size < s.Addr {
			continue
		}
		at, end := s.Addr, s.Addr+s.Size
		i, _ := slices.BinarySearchFunc(covered, at, func(r addrRange, a uint64) int { return cmp.Compare(r.end, a) })
		for ; i < len(covered) && covered[i].start < end; i++ {
			if covered[i].start > at+padding {
				areas = append(areas, addrRange{at, covered[i].start})
			}
			at = max(at, covered[i].end)
		}
		if at+padding < end {
			areas = append(areas, addrRange{at, end})
		}
	}
	return areas
}

// functionStarts returns where functions begin in an area: at symbols, at the
// entry point, and where there are no symbols at what code elsewhere calls, which
// is less certain.
func (b *Binary) functionStarts(area addrRange) []functionStart {
	var starts []functionStart
	add := func(addr uint64, named bool) {
		if addr >= area.start && addr < area.end {
			starts = append(starts, functionStart{addr, named})
		}
	}
	add(b.file.Entry, true)
	named := false
	funcs, _ := b.Functions()
	i, _ := slices.BinarySearchFunc(funcs, area.start, func(f Function, a uint64) int { return cmp.Compare(f.Addr, a) })
	for ; i < len(funcs) && funcs[i].Addr < area.end; i++ {
		if funcs[i].Source != SourceUnwindTable {
			named = true
			add(funcs[i].Addr, true)
		}
	}
	if !named {
		for _, addr := range b.callTargets() {
			add(addr, false)
		}
	}
	slices.SortFunc(starts, func(x, y functionStart) int { return cmp.Compare(x.addr, y.addr) })
	return slices.CompactFunc(starts, func(x, y functionStart) bool { return x.addr == y.addr })
}

// callTargets returns what calls and loads of addresses seem to point to in all
// code, sorted. Some are none: bytes that look like a call and are something
// else.
func (b *Binary) callTargets() []uint64 {
	b.targetsOnce.Do(func() {
		var targets []uint64
		for _, s := range b.file.Sections {
			if s.Type != elf.SHT_PROGBITS || s.Flags&elf.SHF_EXECINSTR == 0 || s.Size > maxScan {
				continue
			}
			code, err := b.sectionData(s, maxScan)
			if err != nil {
				continue
			}
			for i := 0; i+7 <= len(code); i++ {
				var n int
				switch {
				case code[i] == 0xe8: // call rel32
					n = 5
				case code[i]&0xfb == 0x48 && code[i+1] == 0x8d && code[i+2]&0xc7 == 0x05: // lea rel32(%rip)
					n = 7
				default:
					continue
				}
				rel := int32(binary.LittleEndian.Uint32(code[i+n-4:]))
				targets = append(targets, s.Addr+uint64(i+n)+uint64(int64(rel)))
			}
		}
		slices.Sort(targets)
		b.targets = slices.Compact(targets)
	})
	return b.targets
}

// scanState is what is known of the stack before an instruction.
type scanState struct {
	sp    int32 // CFA - rsp
	fp    int32 // CFA - rbp
	spOK  bool  // sp is known
	fpOK  bool  // fp is known
	end   bool  // rbp was zeroed: the outermost frame
	saved [SavedRegs]int16
	lost  [SavedRegs]bool // overwritten, and saved nowhere
}

// join is what is known where two paths meet.
func (s scanState) join(o scanState) scanState {
	s.spOK = s.spOK && o.spOK && s.sp == o.sp
	s.fpOK = s.fpOK && o.fpOK && s.fp == o.fp
	s.end = s.end && o.end
	for i := range s.saved {
		if s.saved[i] != o.saved[i] || s.lost[i] != o.lost[i] {
			s.saved[i], s.lost[i] = 0, true
		}
	}
	if !s.spOK {
		s.sp = 0
	}
	if !s.fpOK {
		s.fp = 0
	}
	return s
}

// rule makes an unwind rule of the state.
func (s *scanState) rule() UnwindRule {
	var r UnwindRule
	switch {
	case s.end:
		return UnwindRule{Kind: UnwindEnd}
	case s.spOK:
		r = UnwindRule{Kind: UnwindCFA, Reg: amd64SP, Offset: s.sp, Second: -8}
	case s.fpOK:
		r = UnwindRule{Kind: UnwindCFA, Reg: amd64FP, Offset: s.fp, Second: -8}
	default:
		return r
	}
	for i := range r.Saved {
		if r.Saved[i] = s.saved[i]; s.lost[i] {
			r.Saved[i] = SavedLost
		}
	}
	return r
}

// scanner follows the paths of one function.
type scanner struct {
	code   []byte
	addr   uint64
	states map[int]scanState // before the instruction at an offset
	size   map[int]int
	work   []int
	wrong  bool        // a path that does not end as a function's should
	ends   int         // paths that do
	jumps  []scanState // at jumps through a register or memory
}

// maxSteps bounds the visits of instructions: each is seen again only when less
// is known of it than before.
const maxSteps = 1 << 20

// scanFunction adds rows for a function if all of its paths prove what is known;
// one that is certainly a function need not return. outermost says that it is the
// program's entry point.
func scanFunction(u *unwindBuilder, code []byte, start functionStart, outermost bool) {
	addr := start.addr
	if len(code) >= len(sigreturn) && bytes.HasPrefix(code, sigreturn) {
		first := u.begin()
		// The caller is looked for at the byte before.
		u.add(addr-1, UnwindRule{Kind: UnwindSignal, Reg: amd64SP, Flags: UnwindExact})
		u.end(first, addr-1, addr+uint64(len(sigreturn)))
		return
	}
	if outermost {
		first := u.begin()
		u.add(addr, UnwindRule{Kind: UnwindEnd})
		u.end(first, addr, addr+uint64(len(code)))
		return
	}
	s := &scanner{code: code, addr: addr, states: make(map[int]scanState), size: make(map[int]int)}
	s.reach(0, scanState{sp: 8, spOK: true})
	s.run()
	s.tables()
	if s.wrong || s.ends == 0 && !start.named {
		return
	}
	offsets := make([]int, 0, len(s.size))
	for off := range s.size {
		offsets = append(offsets, off)
	}
	slices.Sort(offsets)
	first, reach := u.begin(), 0
	for _, off := range offsets {
		if off > reach {
			u.add(addr+uint64(reach), UnwindRule{})
		}
		state := s.states[off]
		u.add(addr+uint64(off), state.rule())
		reach = max(reach, off+s.size[off])
	}
	u.end(first, addr, addr+uint64(reach))
}

// sigreturn is the trampoline of signal handlers: mov $15,%rax; syscall.
var sigreturn = []byte{0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05}

// reach notes that a path comes to off with a state.
func (s *scanner) reach(off int, state scanState) {
	if off < 0 || off >= len(s.code) {
		// A tail call, or what follows a function that does not return.
		if state.spOK && state.sp == 8 && state.restored() {
			s.ends++
		}
		return
	}
	old, seen := s.states[off]
	if seen {
		if state = old.join(state); state == old {
			return
		}
	}
	s.states[off] = state
	s.work = append(s.work, off)
}

// restored reports whether all registers are the caller's.
func (s *scanState) restored() bool {
	for i := range s.saved {
		if s.saved[i] != 0 || s.lost[i] {
			return false
		}
	}
	return true
}

func (s *scanner) run() {
	for steps := 0; len(s.work) > 0 && !s.wrong; steps++ {
		if steps > maxSteps {
			s.wrong = true
			return
		}
		off := s.work[len(s.work)-1]
		s.work = s.work[:len(s.work)-1]
		s.step(off)
	}
}

// tables follows what is reached through jump tables: code that no other path
// leads to begins with the state of the indirect jumps, if that is one and the
// same.
func (s *scanner) tables() {
	if len(s.jumps) == 0 {
		return
	}
	state := s.jumps[0]
	for _, j := range s.jumps[1:] {
		if j != state {
			return
		}
	}
	if state.spOK && state.sp == 8 && state.restored() {
		return // tail calls through pointers
	}
	for off := 0; off < len(s.code) && !s.wrong; {
		if n := s.size[off]; n > 0 {
			off += n
			continue
		}
		if c := s.code[off]; c == 0x90 || c == 0xcc || c == 0 {
			off++
			continue
		}
		if n := nopSize(s.code[off:]); n > 0 {
			off += n
			continue
		}
		s.reach(off, state)
		s.run()
		if s.size[off] == 0 {
			return
		}
	}
}

// step executes the instruction at off.
func (s *scanner) step(off int) {
	state := s.states[off]
	inst, n := decodeAMD64(s.code[off:])
	if n == 0 {
		s.wrong = true
		return
	}
	s.size[off] = n
	next := off + n
	switch inst.Op {
	case x86asm.RET:
		// What was left of the stack must be the return address alone.
		if state.end {
			return
		}
		if !state.spOK || state.sp != 8 || !state.restored() {
			s.wrong = true
			return
		}
		s.ends++
	case x86asm.JMP:
		if rel, ok := inst.Args[0].(x86asm.Rel); ok {
			s.reach(next+int(rel), state)
			return
		}
		if state.spOK && state.sp == 8 && state.restored() {
			s.ends++
		}
		s.jumps = append(s.jumps, state)
	case x86asm.UD2, x86asm.HLT, x86asm.INT:
		if state.end || inst.Op == x86asm.UD2 {
			s.ends++
		}
	default:
		if rel, ok := inst.Args[0].(x86asm.Rel); ok && inst.Op != x86asm.CALL {
			s.reach(next+int(rel), state) // conditional
		}
		if !state.execute(inst) {
			s.wrong = true
			return
		}
		s.reach(next, state)
	}
}
