package symbolizer

import "golang.org/x/arch/x86/x86asm"

// decodeAMD64 decodes one instruction; its size is 0 if that is not possible.
// Vector instructions with VEX and EVEX prefixes, which write neither the stack
// nor the frame pointer, have no operation.
func decodeAMD64(code []byte) (x86asm.Inst, int) {
	if len(code) > 2 && (code[0] == 0xc5 || code[0] == 0xc4 || code[0] == 0x62) {
		return x86asm.Inst{}, vexSize(code)
	}
	if len(code) >= 4 && code[0] == 0xf3 && code[1] == 0x0f && code[2] == 0x1e && code[3] == 0xfa {
		return x86asm.Inst{Op: x86asm.NOP}, 4 // endbr64
	}
	inst, err := x86asm.Decode(code, 64)
	if err != nil || inst.Len == 0 {
		return inst, 0
	}
	return inst, inst.Len
}

// vexSize is the size of an instruction with a VEX or EVEX prefix (Intel SDM
// volume 2, section 2.3 and 2.7).
func vexSize(code []byte) int {
	prefix, table := 2, byte(1)
	switch code[0] {
	case 0xc4:
		prefix, table = 3, code[1]&0x1f
	case 0x62:
		prefix, table = 4, code[1]&7
	}
	if len(code) < prefix+2 {
		return 0
	}
	op, modrm := code[prefix], code[prefix+1]
	n := prefix + 2
	if table == 1 && op == 0x77 { // vzeroupper
		return prefix + 1
	}
	mod, rm := modrm>>6, modrm&7
	if mod != 3 && rm == 4 {
		if len(code) < n+1 {
			return 0
		}
		if mod == 0 && code[n]&7 == 5 {
			n += 4
		}
		n++
	}
	switch {
	case mod == 1:
		n++
	case mod == 2, mod == 0 && rm == 5:
		n += 4
	}
	if table == 3 || table == 1 && (op >= 0x70 && op <= 0x73 || op == 0xc2 || op >= 0xc4 && op <= 0xc6) {
		n++ // an immediate byte
	}
	if n > len(code) {
		return 0
	}
	return n
}

// nopSize is the size of a multi-byte nop, 0 if there is none.
func nopSize(code []byte) int {
	if inst, n := decodeAMD64(code); n > 0 && inst.Op == x86asm.NOP {
		return n
	}
	return 0
}

// wholeReg returns the 64-bit register that r is a part of.
func wholeReg(r x86asm.Reg) x86asm.Reg {
	switch {
	case r >= x86asm.RAX && r <= x86asm.R15:
		return r
	case r >= x86asm.EAX && r <= x86asm.R15L:
		return r - x86asm.EAX + x86asm.RAX
	case r >= x86asm.AX && r <= x86asm.R15W:
		return r - x86asm.AX + x86asm.RAX
	case r >= x86asm.SPB && r <= x86asm.R15B:
		return r - x86asm.SPB + x86asm.RSP
	case r >= x86asm.AL && r <= x86asm.BL:
		return r - x86asm.AL + x86asm.RAX
	case r >= x86asm.AH && r <= x86asm.BH:
		return r - x86asm.AH + x86asm.RAX
	}
	return 0
}

// trackedIndex is the index of a register in UnwindRule.Saved, -1 for others.
func trackedIndex(r x86asm.Reg) int {
	switch r {
	case x86asm.RBX:
		return 0
	case x86asm.RBP:
		return 1
	case x86asm.R12, x86asm.R13, x86asm.R14, x86asm.R15:
		return 2 + int(r-x86asm.R12)
	}
	return -1
}

// execute changes the state as an instruction does that goes on to the next one.
// It reports false where the stack is used as no function's is.
func (s *scanState) execute(inst x86asm.Inst) bool {
	reg, isReg := inst.Args[0].(x86asm.Reg)
	whole := x86asm.Reg(0)
	if isReg {
		whole = wholeReg(reg)
	}
	switch inst.Op {
	case 0, x86asm.NOP, x86asm.CMP, x86asm.TEST, x86asm.CALL, x86asm.BT, x86asm.SYSCALL:
		return true
	case x86asm.PUSH:
		s.push(whole)
	case x86asm.PUSHF, x86asm.PUSHFQ:
		s.push(0)
	case x86asm.POPF, x86asm.POPFQ:
		s.sp -= 8
	case x86asm.POP:
		s.pop(whole)
	case x86asm.LEAVE:
		if !s.fpOK {
			return false
		}
		s.sp, s.spOK = s.fp, true
		s.pop(x86asm.RBP)
	case x86asm.ADD, x86asm.SUB:
		imm, isImm := inst.Args[1].(x86asm.Imm)
		switch {
		case whole == x86asm.RSP && isImm && inst.Op == x86asm.ADD:
			s.sp -= int32(imm)
		case whole == x86asm.RSP && isImm:
			s.sp += int32(imm)
		default:
			s.write(whole)
		}
	case x86asm.LEA:
		s.lea(whole, inst.Args[1])
	case x86asm.MOV:
		s.mov(whole, inst)
	case x86asm.XOR:
		if src, ok := inst.Args[1].(x86asm.Reg); ok && whole == x86asm.RBP && wholeReg(src) == x86asm.RBP && s.saved[1] == 0 {
			s.end = true // as the ABI has the outermost frame marked
			return true
		}
		s.write(whole)
	case x86asm.XCHG, x86asm.XADD:
		s.write(whole)
		if src, ok := inst.Args[1].(x86asm.Reg); ok {
			s.write(wholeReg(src))
		}
	case x86asm.CPUID:
		s.write(x86asm.RBX)
	case x86asm.ENTER:
		return false
	default:
		s.write(whole)
	}
	// Less than the return address on the stack: not a function that is called.
	return s.end || !s.spOK || s.sp >= 8 && s.sp < 1<<30
}

// write notes that a register has another value now.
func (s *scanState) write(r x86asm.Reg) {
	if r == x86asm.RSP {
		s.spOK, s.sp = false, 0
	}
	if r == x86asm.RBP {
		s.fpOK, s.fp = false, 0
	}
	if i := trackedIndex(r); i >= 0 && s.saved[i] == 0 {
		s.lost[i] = true
	}
}

func (s *scanState) push(r x86asm.Reg) {
	s.sp += 8
	s.save(r, s.sp)
}

// save notes that a register was stored at CFA - below.
func (s *scanState) save(r x86asm.Reg, below int32) {
	i := trackedIndex(r)
	if i < 0 || !s.spOK && !s.fpOK || s.lost[i] || s.saved[i] != 0 || below%8 != 0 || below <= 8 || below > 1<<16 {
		return
	}
	s.saved[i] = int16(-below / 4)
}

// restore notes that a register was loaded from CFA - below.
func (s *scanState) restore(r x86asm.Reg, below int32) {
	i := trackedIndex(r)
	if i >= 0 && s.saved[i] != 0 && int32(s.saved[i]) == -below/4 {
		s.saved[i] = 0
		if r == x86asm.RBP {
			s.fpOK, s.fp = false, 0
		}
		return
	}
	s.write(r)
}

func (s *scanState) pop(r x86asm.Reg) {
	if !s.spOK {
		s.write(r)
		return
	}
	below := s.sp
	s.sp -= 8
	s.restore(r, below)
}

// place returns how far below the CFA an operand in memory is.
func (s *scanState) place(arg x86asm.Arg) (below int32, ok bool) {
	m, isMem := arg.(x86asm.Mem)
	if !isMem || m.Index != 0 || m.Segment != 0 {
		return 0, false
	}
	switch {
	case m.Base == x86asm.RSP && s.spOK:
		return s.sp - int32(m.Disp), true
	case m.Base == x86asm.RBP && s.fpOK:
		return s.fp - int32(m.Disp), true
	}
	return 0, false
}

func (s *scanState) lea(r x86asm.Reg, arg x86asm.Arg) {
	below, ok := s.place(arg)
	s.write(r)
	if !ok {
		return
	}
	switch r {
	case x86asm.RSP:
		s.sp, s.spOK = below, true
	case x86asm.RBP:
		s.fp, s.fpOK = below, true
	}
}

func (s *scanState) mov(r x86asm.Reg, inst x86asm.Inst) {
	src, fromReg := inst.Args[1].(x86asm.Reg)
	switch {
	case r == x86asm.RBP && fromReg && src == x86asm.RSP && s.spOK:
		fp := s.sp
		s.write(r)
		s.fp, s.fpOK = fp, true
	case r == x86asm.RSP && fromReg && src == x86asm.RBP && s.fpOK:
		s.sp, s.spOK = s.fp, true
	case r == 0 && fromReg && inst.DataSize == 64:
		if below, ok := s.place(inst.Args[0]); ok {
			s.save(src, below)
		}
	case r != 0 && !fromReg && inst.DataSize == 64:
		if below, ok := s.place(inst.Args[1]); ok {
			s.restore(r, below)
			return
		}
		s.write(r)
	default:
		s.write(r)
	}
}
