package uprobes

import "github.com/sbxtrace/sbxtrace/symbolizer"

// scanAMD64 looks at the whole body once: linearly, since compilers put
// nothing but code into a function, and by flow of control where that does not
// fit.
func scanAMD64(code []byte, fn *symbolizer.Function, opt *Options, s *scratch) body {
	b := linearAMD64(code, fn, opt, s)
	if b.mixed {
		linear := b
		s.reset(len(code))
		b = followAMD64(code, fn, opt, s)
		// What the linear pass took for branches may have been data, but
		// believing it costs little: the entry stays nearer to the first byte.
		b.minTarget = min(b.minTarget, linear.minTarget)
		b.readsReturnAddr = b.readsReturnAddr || linear.readsReturnAddr
		b.switchesStack = b.switchesStack || linear.switchesStack
		b.mixed = true
	}
	b.rets, b.retClass = s.rets, SingleStepped
	return b
}

// linearAMD64 decodes from the first byte to the last. It follows the stack
// depth along forward branches, so that a jump out of the function can be told
// from one into its cold part: a tail call has given the frame back.
func linearAMD64(code []byte, fn *symbolizer.Function, opt *Options, s *scratch) body {
	n := int32(len(code))
	b := body{minTarget: n}
	st := stackAMD64{}
	var in insnAMD64
	var table tableJump
	pending := 0 // forward targets not yet reached
	// How deep the stack is at jumps through switch tables. Code behind the end
	// of a path that no branch leads to is a case of one.
	cases := int32(depthNone)
	for off := int32(0); off < n; {
		mark := s.marks[off]
		if mark&markTarget != 0 {
			pending--
			table = tableJump{}
			// The call before a label may be one that never returns: what a branch
			// to the label says counts more.
			if mark&markDepth != 0 {
				st.depth = mark >> markShift
			} else if in.flow == flowCall || in.flow == flowCallInd {
				st.depth = depthUnknown
			}
		}
		if !decodeAMD64(code[off:], &in) {
			b.mixed = true
			return b
		}
		s.marks[off] = mark | markInsn
		next := off + int32(in.length)
		if in.prefix&prefixLock != 0 && code[off] == 0xf0 {
			// The C library jumps over lock prefixes in processes of one thread.
			if s.marks[off+1]&markTarget != 0 {
				pending--
			}
			s.marks[off+1] |= markInsn
		}
		switch in.flow {
		case flowNext:
			st.step(&in, &b)
			table.step(&in)
		case flowRet:
			if st.depth > 0 { // a pushed address: rather a jump
				b.tailJumps, b.tailsUnseen = true, true
			}
			s.rets = append(s.rets, off)
		case flowCall:
			if in.imm == 0 { // call of the next instruction: it pushes its address
				st.push(8)
				break
			}
			b.calls = true
			b.selfRecursive = b.selfRecursive || next+in.imm == 0
		case flowCallInd:
			b.calls = true
		case flowJump, flowCond:
			t := int64(next) + int64(in.imm)
			if t < 0 || t >= int64(n) {
				if b.leave(fn, fn.Addr+uint64(t), st.depth, opt) {
					b.tailAMD64(off, &in)
				}
				break
			}
			b.target(int32(t))
			switch m := &s.marks[t]; {
			case int32(t) < next:
				b.mixed = b.mixed || *m&markInsn == 0
			case *m&markTarget == 0:
				pending++
				fallthrough
			case *m&markDepth == 0:
				*m = markOf(st.depth)
			}
		case flowJumpInd:
			if b.jumpIndirect(off, &in, &table, &st, fn) {
				if cases == depthNone {
					cases = st.depth
				} else if cases != st.depth {
					cases = depthUnknown
				}
			}
		}
		if in.flow != flowNext && in.flow != flowCond && in.flow != flowCall && in.flow != flowCallInd {
			st.depth = depthUnknown
			if cases > 0 {
				st.depth = cases
			}
		}
		off = next
	}
	b.mixed = b.mixed || pending != 0
	return b
}

// jumpIndirect judges an indirect jump: a switch table or a tail call. It reports
// whether it is surely a switch table.
func (b *body) jumpIndirect(off int32, in *insnAMD64, table *tableJump, st *stackAMD64, fn *symbolizer.Function) bool {
	switch {
	case st.depth > 0: // the frame is still there
	case in.prefix&prefixSeg != 0: // notrack: compilers emit it for switch tables alone
	case table.added && !in.isMem(): // target = table + table[index]
	case in.isMem() && in.modrm&7 == 4 && in.sib>>6 == 3 && (fn.Lang == symbolizer.LangGo || in.sib&7 == 5 && in.modrm>>6 == 0):
		// Scaled by 8 from a fixed address, or in Go, which makes no tail calls
		// through tables.
	case st.depth == 0:
		b.tailJumps = true
		b.tail(off, Always, SingleStepped)
		return false
	default:
		b.tailJumps, b.tailsUnseen = true, true
		return false
	}
	return true
}

// tailAMD64 notes a direct jump to another function.
func (b *body) tailAMD64(off int32, in *insnAMD64) {
	switch {
	case in.flow == flowJump:
		b.tail(off, Always, Emulated)
	case in.opMap == mapOne && in.op&0xf0 == 0x70, in.opMap == map0F && in.op&0xf0 == 0x80:
		b.tail(off, Conditional|Condition(in.op&0xf), Emulated)
	default: // jrcxz, loop: not worth a rule
		b.tailsUnseen = true
	}
}

// tableJump recognises the computation before a jump through a table of
// 32-bit distances: movslq (table,index,4), reg; add table, reg; jmp *reg.
type tableJump struct{ loaded, added bool }

func (t *tableJump) step(in *insnAMD64) {
	switch {
	case in.op == 0x63 && in.opMap == mapOne && in.isMem():
		*t = tableJump{loaded: true}
	case t.loaded && in.opMap == mapOne && (in.op == 0x01 || in.op == 0x03) && !in.isMem():
		t.added = true
	}
}

// stackAMD64 follows the stack pointer.
type stackAMD64 struct {
	depth int32 // bytes between the slot of the return address and the stack pointer; depthUnknown
	frame int32 // depth that the frame pointer stands for; 0 if the function has none
}

func (st *stackAMD64) push(n int32) {
	if st.depth == depthUnknown {
		return
	}
	st.depth += n
	if st.depth < 0 || st.depth > maxDepth {
		st.depth = depthUnknown
	}
}

// fromFrame makes the stack pointer frame+n.
func (st *stackAMD64) fromFrame(n int32) {
	st.depth = depthUnknown
	if d := int64(st.frame) - int64(n); st.frame != 0 && d >= 0 && d <= maxDepth {
		st.depth = int32(d)
	}
}

// step follows one instruction that is no branch. Writes to rbp other than
// those that make a frame are not seen: a function that uses rbp for something
// else never restores the stack pointer from it.
func (st *stackAMD64) step(in *insnAMD64, b *body) {
	if in.enc != encLegacy || in.opMap != mapOne {
		return
	}
	switch op := in.op; {
	case op >= 0x50 && op <= 0x57, op == 0x68, op == 0x6a, op == 0x9c:
		if in.prefix&prefixData16 != 0 {
			st.depth = depthUnknown
			return
		}
		st.push(8)
	case op >= 0x58 && op <= 0x5f, op == 0x9d:
		if op == 0x5c && in.rex&1 == 0 || in.prefix&prefixData16 != 0 { // pop %rsp
			st.depth = depthUnknown
			return
		}
		b.readsReturnAddr = b.readsReturnAddr || st.depth == 0
		st.push(-8)
	case op == 0xc9: // leave
		st.fromFrame(8)
	case op == 0xc8: // enter
		st.push(8)
		st.frame = st.depth
		st.push(in.imm & 0xffff)
	case in.prefix&hasModRM == 0:
	case in.isMem():
		st.stepMem(in, b)
	default:
		st.stepReg(in, b)
	}
}

// stepMem follows an instruction with a memory operand.
func (st *stackAMD64) stepMem(in *insnAMD64, b *body) {
	base, index := in.mem()
	if index == baseNone && st.depth != depthUnknown && in.op != 0x8d && in.op != 0x89 && in.prefix&prefixLock == 0 &&
		(base == regRSP && in.disp == st.depth || base == regRBP && st.frame != 0 && in.disp == st.frame) {
		b.readsReturnAddr = true
	}
	switch in.op {
	case 0x8f: // pop
		st.push(-8)
	case 0xff:
		if in.reg() == 6 { // push
			st.push(8)
		}
	case 0x8d: // lea
		switch in.regNum() {
		case regRSP:
			switch {
			case index == baseNone && base == regRSP:
				st.push(-in.disp)
			case index == baseNone && base == regRBP:
				st.fromFrame(in.disp)
			default:
				st.depth = depthUnknown
			}
		case regRBP:
			if index == baseNone && base == regRSP && st.depth != depthUnknown && int64(in.disp) <= int64(st.depth) {
				st.frame = st.depth - in.disp
			}
		}
	case 0x8b, 0x03, 0x0b, 0x23, 0x2b, 0x33: // mov, add, or, and, sub, xor to a register
		if in.regNum() == regRSP {
			st.depth = depthUnknown
			if in.op == 0x8b && st.frame == 0 && base != regRSP && base != regRBP && base != baseRIP {
				b.switchesStack = true
			}
		}
	case 0x87: // xchg
		if in.regNum() == regRSP {
			st.depth = depthUnknown
			b.switchesStack = true
		}
	}
}

// stepReg follows an instruction between registers, or one and an immediate.
func (st *stackAMD64) stepReg(in *insnAMD64, b *body) {
	rm, reg := in.rmNum(), in.regNum()
	switch in.op {
	case 0x81, 0x83:
		if rm != regRSP {
			return
		}
		switch {
		case in.reg() == 7: // cmp
		case in.reg() == 5 && in.rex&8 != 0: // sub
			st.push(in.imm)
		case in.reg() == 0 && in.rex&8 != 0: // add
			st.push(-in.imm)
		default:
			st.depth = depthUnknown
		}
	case 0x89, 0x8b: // mov
		from, to := reg, rm
		if in.op == 0x8b {
			from, to = rm, reg
		}
		switch {
		case to == regRSP && from == regRBP && st.frame != 0:
			st.fromFrame(0)
		case to == regRSP:
			st.depth = depthUnknown
			switch from {
			case regRDI, regRSI, regRDX, regRCX:
				b.switchesStack = b.switchesStack || st.frame == 0
			}
		case to == regRBP && from == regRSP && st.depth > 0:
			st.frame = st.depth
		}
	case 0x01, 0x09, 0x21, 0x29, 0x31: // add, or, and, sub, xor to rm
		if rm == regRSP {
			st.depth = depthUnknown
		}
	case 0x03, 0x0b, 0x23, 0x2b, 0x33:
		if reg == regRSP {
			st.depth = depthUnknown
		}
	case 0x87:
		if rm == regRSP || reg == regRSP {
			st.depth = depthUnknown
			b.switchesStack = true
		}
	}
}

// followAMD64 decodes only what flow of control reaches from the entry, for
// code that has data in it. Jumps through tables end a path: their targets are
// not known, so that RETs behind them are not proven.
func followAMD64(code []byte, fn *symbolizer.Function, opt *Options, s *scratch) body {
	n := int32(len(code))
	b := body{minTarget: n}
	var in insnAMD64
	s.work = append(s.work, 0)
	for len(s.work) > 0 {
		off := s.work[len(s.work)-1]
		s.work = s.work[:len(s.work)-1]
		for off < n && s.marks[off] == 0 {
			if !decodeAMD64(code[off:], &in) {
				b.problem = "undecodable bytes"
				break
			}
			next := off + int32(in.length)
			for i := off; i < next; i++ {
				if s.marks[i] != 0 {
					b.problem = "overlapping instructions"
				}
				s.marks[i] = markTarget // taken
			}
			s.marks[off] = markInsn
			stop := false
			switch in.flow {
			case flowRet:
				s.rets = append(s.rets, off)
				stop = true
			case flowCall, flowCallInd:
				b.calls = true
				b.selfRecursive = b.selfRecursive || in.flow == flowCall && next+in.imm == 0
			case flowJump, flowCond:
				stop = in.flow == flowJump
				t := int64(next) + int64(in.imm)
				if t < 0 || t >= int64(n) {
					b.leave(fn, fn.Addr+uint64(t), depthUnknown, opt)
					break
				}
				b.target(int32(t))
				s.work = append(s.work, int32(t))
			case flowJumpInd:
				b.tailJumps, b.tailsUnseen = true, true
				b.problem = "jump through a table among data"
				stop = true
			case flowStop:
				stop = true
			}
			if stop {
				break
			}
			off = next
			if off < n && s.marks[off] == markTarget {
				b.problem = "overlapping instructions"
			}
		}
		if off < n && s.marks[off] == markTarget {
			b.problem = "overlapping instructions"
		}
	}
	sortOffsets(s.rets)
	return b
}
