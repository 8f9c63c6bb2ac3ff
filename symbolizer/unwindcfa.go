package symbolizer

import (
	"cmp"
	"debug/elf"
	"slices"
)

// regRule is where a register's value in the caller is to be found.
type regRule struct {
	kind   regKind
	reg    uint64 // regInReg
	offset int64  // regAtCFA, regAtFP: bytes
}

type regKind uint8

const (
	regSame      regKind = iota // still in the register
	regUndefined                // nowhere
	regAtCFA                    // in memory at CFA + offset
	regAtFP                     // in memory at the frame pointer + offset
	regInReg                    // in another register
)

// cfaState is the row of unwind rules that call frame instructions work on.
type cfaState struct {
	cfa   addrRule // kind UnwindCFA, UnwindDeref, UnwindPLT or UnwindNone
	ra    regRule
	sp    regRule // regSame: the caller's is the CFA
	saved [SavedRegs]regRule
}

// addrRule is a rule for the CFA, or the address that an expression yields.
type addrRule struct {
	kind   UnwindKind
	reg    uint64
	offset int64
	second int64
}

// cfaMachine executes the call frame instructions of one FDE.
type cfaMachine struct {
	b     *unwindBuilder
	cie   *CIE
	fp    uint64 // DWARF number of the frame pointer
	sp    uint64 // of the stack pointer
	raCol uint64
	state cfaState
	init  cfaState // as the CIE's instructions left it
	stack []cfaState
	pc    uint64
	bad   bool // an instruction that cannot be followed
}

// maxRemember bounds DW_CFA_remember_state nesting; compilers use one or two.
const maxRemember = 32

// addFrames adds the rows of FDEs.
func (b *unwindBuilder) addFrames(frames []FDE) {
	b.addMissing(frames, nil)
}

// addMissing adds the rows of FDEs whose code is in none of the ranges of known,
// which is sorted.
func (b *unwindBuilder) addMissing(frames []FDE, known []addrRange) {
	m := &cfaMachine{b: b, fp: amd64FP, sp: amd64SP, raCol: amd64RA}
	if b.arch == elf.EM_AARCH64 {
		m.fp, m.sp, m.raCol = arm64FP, arm64SP, arm64RA
	}
	for i := range frames {
		if b.full() {
			return
		}
		f := &frames[i]
		if overlaps(known, f.Start, f.Start+f.Size) {
			continue
		}
		b.table.FDEs++
		if !m.run(f) {
			b.table.Unsupported++
		}
	}
}

// overlaps reports whether [start, end) shares an address with one of the sorted
// ranges.
func overlaps(sorted []addrRange, start, end uint64) bool {
	i, _ := slices.BinarySearchFunc(sorted, start, func(r addrRange, a uint64) int { return cmp.Compare(r.start, a) })
	return i > 0 && sorted[i-1].end > start || i < len(sorted) && sorted[i].start < end
}

// run executes an FDE and adds its rows. It reports whether all of its
// instructions could be followed; rows before one that cannot are kept.
func (m *cfaMachine) run(f *FDE) bool {
	first := m.b.begin()
	if m.cie != f.CIE {
		m.cie, m.state, m.stack, m.bad = f.CIE, cfaState{}, m.stack[:0], false
		m.execute(f.CIE.Instructions, f, func(uint64) {})
		m.init = m.state
		if m.bad {
			m.cie = nil
			return false
		}
	}
	m.state, m.stack, m.bad = m.init, m.stack[:0], false
	m.pc = f.Start
	end := f.Start + f.Size
	m.execute(f.Instructions, f, func(next uint64) {
		if next > m.pc && m.pc < end {
			m.b.add(m.pc, m.current(f))
		}
		m.pc = next
	})
	if m.pc < end && !m.b.full() {
		r := m.current(f)
		if m.bad {
			r = UnwindRule{}
		}
		m.b.add(m.pc, r)
	}
	m.b.end(first, f.Start, end)
	return !m.bad
}

// execute runs instructions. advance is called with the new location before the
// location changes.
func (m *cfaMachine) execute(code []byte, f *FDE, advance func(next uint64)) {
	p := &ehParser{data: code, layout: EHFrameLayout{Order: f.CIE.order, PointerSize: 8}}
	c := p.cursor(0, len(code))
	for c.err == nil && c.at < c.end && !m.bad && !m.b.full() {
		op := c.u8()
		arg := uint64(op & 0x3f)
		switch op & 0xc0 {
		case cfaAdvanceLoc:
			advance(m.pc + arg*m.cie.CodeAlign)
			continue
		case cfaOffset:
			m.set(arg, regRule{kind: regAtCFA, offset: int64(c.uleb()) * m.cie.DataAlign})
			continue
		case cfaRestore:
			m.restore(arg)
			continue
		}
		switch op {
		case cfaAdvanceLoc1:
			advance(m.pc + uint64(c.u8())*m.cie.CodeAlign)
		case cfaAdvanceLoc2:
			advance(m.pc + c.fixed(2)*m.cie.CodeAlign)
		case cfaAdvanceLoc4:
			advance(m.pc + c.fixed(4)*m.cie.CodeAlign)
		case cfaNop:
		case cfaGNUArgsSize:
			c.uleb()
		case cfaNegateRAState: // the return address is signed from here on, or no more: its upper bits are cut anyway
		default:
			m.instruction(op, &c)
		}
	}
	m.bad = m.bad || c.err != nil
}

// instruction executes one that changes the row.
func (m *cfaMachine) instruction(op byte, c *ehCursor) {
	s := &m.state
	switch op {
	case cfaDefCFA:
		s.cfa = addrRule{kind: UnwindCFA, reg: c.uleb(), offset: int64(c.uleb())}
	case cfaDefCFASF:
		s.cfa = addrRule{kind: UnwindCFA, reg: c.uleb(), offset: c.sleb() * m.cie.DataAlign}
	case cfaDefCFARegister:
		s.cfa = addrRule{kind: UnwindCFA, reg: c.uleb(), offset: s.cfa.offset}
	case cfaDefCFAOffset:
		s.cfa.offset = int64(c.uleb())
	case cfaDefCFAOffsetSF:
		s.cfa.offset = c.sleb() * m.cie.DataAlign
	case cfaDefCFAExpression:
		s.cfa = m.expression(c)
	case cfaOffsetExtended:
		reg := c.uleb()
		m.set(reg, regRule{kind: regAtCFA, offset: int64(c.uleb()) * m.cie.DataAlign})
	case cfaOffsetExtendedSF:
		reg := c.uleb()
		m.set(reg, regRule{kind: regAtCFA, offset: c.sleb() * m.cie.DataAlign})
	case cfaGNUNegativeOffset:
		reg := c.uleb()
		m.set(reg, regRule{kind: regAtCFA, offset: -int64(c.uleb()) * m.cie.DataAlign})
	case cfaUndefined:
		m.set(c.uleb(), regRule{kind: regUndefined})
	case cfaSameValue:
		m.set(c.uleb(), regRule{})
	case cfaRegister:
		reg := c.uleb()
		m.set(reg, regRule{kind: regInReg, reg: c.uleb()})
	case cfaRestoreExtended:
		m.restore(c.uleb())
	case cfaExpression:
		reg := c.uleb()
		m.set(reg, m.savedAt(m.expression(c)))
	case cfaValExpression:
		reg := c.uleb()
		c.take(c.uleb())
		m.set(reg, regRule{kind: regUndefined})
	case cfaValOffset, cfaValOffsetSF:
		reg := c.uleb()
		c.uleb() // signed and unsigned take the same bytes
		m.set(reg, regRule{kind: regUndefined})
	case cfaRememberState:
		if len(m.stack) >= maxRemember {
			m.bad = true
			return
		}
		m.stack = append(m.stack, *s)
	case cfaRestoreState:
		if len(m.stack) == 0 {
			m.bad = true
			return
		}
		*s = m.stack[len(m.stack)-1]
		m.stack = m.stack[:len(m.stack)-1]
	default: // DW_CFA_set_loc, which nobody writes, and those of the future
		m.bad = true
	}
}

// slot returns the rule of a register, nil for one that is not followed.
func (m *cfaMachine) slot(s *cfaState, reg uint64) *regRule {
	for i, r := range m.b.regs {
		if uint64(r) == reg {
			return &s.saved[i]
		}
	}
	switch reg {
	case m.raCol:
		return &s.ra
	case m.sp:
		return &s.sp
	}
	return nil
}

func (m *cfaMachine) set(reg uint64, r regRule) {
	if slot := m.slot(&m.state, reg); slot != nil {
		*slot = r
	}
}

func (m *cfaMachine) restore(reg uint64) {
	if slot := m.slot(&m.state, reg); slot != nil {
		*slot = *m.slot(&m.init, reg)
	}
}

// savedAt is the rule of a register that an expression gives the place of.
func (m *cfaMachine) savedAt(place addrRule) regRule {
	if place.kind == UnwindCFA && place.reg == m.fp {
		return regRule{kind: regAtFP, offset: place.offset}
	}
	return regRule{kind: regUndefined}
}

// current makes a rule of the present row.
func (m *cfaMachine) current(f *FDE) UnwindRule {
	s := &m.state
	var r UnwindRule
	if f.CIE.SignalFrame {
		r.Flags = UnwindExact
		if m.b.arch == elf.EM_X86_64 {
			return m.signal()
		}
	}
	if !m.setCFA(&r) {
		return UnwindRule{}
	}
	if m.b.arch == elf.EM_X86_64 && !setReturn(&r, s.ra) {
		return UnwindRule{}
	}
	for i, saved := range s.saved {
		r.Saved[i] = encodeSaved(saved)
	}
	if m.b.arch == elf.EM_AARCH64 && s.saved[1].kind == regUndefined {
		return UnwindRule{Kind: UnwindEnd}
	}
	if r.Kind != UnwindEnd {
		return r
	}
	return UnwindRule{Kind: UnwindEnd}
}

func (m *cfaMachine) setCFA(r *UnwindRule) bool {
	cfa := m.state.cfa
	if m.state.sp.kind != regSame || cfa.kind == UnwindNone || cfa.reg > 31 || int64(int32(cfa.offset)) != cfa.offset || int64(int32(cfa.second)) != cfa.second {
		return false
	}
	r.Kind, r.Reg, r.Offset, r.Second = cfa.kind, uint8(cfa.reg), int32(cfa.offset), int32(cfa.second)
	return true
}

// setReturn puts the place of the return address into r (x86-64).
func setReturn(r *UnwindRule, ra regRule) bool {
	switch ra.kind {
	case regUndefined:
		r.Kind = UnwindEnd
	case regInReg:
		if ra.reg > 15 {
			return false
		}
		r.RAReg = uint8(ra.reg) + 1
	case regAtCFA:
		if r.Kind == UnwindCFA {
			if int64(int32(ra.offset)) != ra.offset {
				return false
			}
			r.Second = int32(ra.offset)
		} else if ra.offset != -8 {
			return false
		}
	default:
		return false
	}
	return true
}

// encodeSaved packs the place of a register, see UnwindRule.Saved.
func encodeSaved(r regRule) int16 {
	if r.kind == regSame {
		return 0
	}
	n := r.offset / 8
	if r.offset%8 != 0 || n < -1<<13 || n >= 1<<13 {
		return SavedLost
	}
	switch {
	case r.kind == regAtCFA && n != 0:
		return int16(2 * n)
	case r.kind == regAtFP:
		return int16(2*n + 1)
	}
	return SavedLost
}

// signal is the rule for the x86-64 signal trampoline, whose CFA is the
// interrupted stack pointer, saved in the signal frame: gregs[REG_RSP] of the
// ucontext at sp (arch/x86/include/uapi/asm/sigcontext.h).
func (m *cfaMachine) signal() UnwindRule {
	const savedSP = 160
	cfa := m.state.cfa
	if cfa.kind != UnwindDeref || cfa.reg != amd64SP || cfa.second != 0 {
		return UnwindRule{}
	}
	return UnwindRule{Kind: UnwindSignal, Reg: amd64SP, Flags: UnwindExact, Offset: int32(cfa.offset - savedSP)}
}
