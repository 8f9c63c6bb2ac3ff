package symbolizer

// DWARF expression operations (DW_OP_*) that unwind information uses.
const (
	opDeref      = 0x06
	opConst1u    = 0x08
	opConst1s    = 0x09
	opConst2u    = 0x0a
	opConst2s    = 0x0b
	opConst4u    = 0x0c
	opConst4s    = 0x0d
	opConstu     = 0x10
	opConsts     = 0x11
	opAnd        = 0x1a
	opMinus      = 0x1c
	opPlus       = 0x22
	opPlusUconst = 0x23
	opShl        = 0x24
	opGe         = 0x2a
	opLit0       = 0x30
	opLit31      = 0x4f
	opBreg0      = 0x70
	opBreg31     = 0x8f
	opBregx      = 0x92
)

// exprValue is what an operand of an expression is known to be.
type exprValue struct {
	kind   exprKind
	reg    uint64
	offset int64 // constant, or added to the register
	second int64 // added to the word at reg + offset
}

type exprKind uint8

const (
	exprConst exprKind = iota
	exprReg            // register + offset
	exprDeref          // word at (register + offset) + second
	exprMask           // low bits of the address of the code
	exprHigh           // 1 from byte offset of each 16 bytes of code on
	exprPLT            // sp + offset, 8 more from byte second of each 16 bytes of code on
)

// expression evaluates a block with a DWARF expression as far as a rule can
// express its value: register + offset, one more word fetched from there, and
// the expression of procedure linkage tables (binutils, elfxx-x86.c).
func (m *cfaMachine) expression(c *ehCursor) addrRule {
	block := c.take(c.uleb())
	v, ok := m.evaluate(&block)
	if block.err != nil && c.err == nil {
		c.err = block.err
	}
	if !ok {
		return addrRule{}
	}
	switch v.kind {
	case exprReg:
		return addrRule{kind: UnwindCFA, reg: v.reg, offset: v.offset}
	case exprDeref:
		return addrRule{kind: UnwindDeref, reg: v.reg, offset: v.offset, second: v.second}
	case exprPLT:
		return addrRule{kind: UnwindPLT, reg: v.reg, offset: v.offset, second: v.second}
	}
	return addrRule{}
}

func (m *cfaMachine) evaluate(c *ehCursor) (v exprValue, ok bool) {
	const maxStack = 8
	var stack [maxStack]exprValue
	n := 0
	push := func(v exprValue) bool {
		if n == maxStack {
			return false
		}
		stack[n] = v
		n++
		return true
	}
	for c.err == nil && c.at < c.end {
		op := c.u8()
		var operand exprValue
		switch {
		case op >= opLit0 && op <= opLit31:
			operand.offset = int64(op - opLit0)
		case op >= opBreg0 && op <= opBreg31:
			operand = exprValue{kind: exprReg, reg: uint64(op - opBreg0), offset: c.sleb()}
		case op == opBregx:
			operand = exprValue{kind: exprReg, reg: c.uleb(), offset: c.sleb()}
		case op == opDeref || op == opPlusUconst:
			if n == 0 || !stack[n-1].unary(op, c) {
				return v, false
			}
			continue
		case op == opAnd || op == opMinus || op == opPlus || op == opShl || op == opGe:
			if n < 2 || !stack[n-2].binary(op, stack[n-1], m.raCol) {
				return v, false
			}
			n--
			continue
		default:
			if operand.offset, ok = constant(op, c); !ok {
				return v, false
			}
		}
		if !push(operand) {
			return v, false
		}
	}
	if c.err != nil || n == 0 {
		return v, false
	}
	return stack[n-1], true
}

// constant reads the operand of an operation that pushes a constant.
func constant(op byte, c *ehCursor) (v int64, ok bool) {
	switch op {
	case opConst1u:
		return int64(c.u8()), true
	case opConst1s:
		return int64(int8(c.u8())), true
	case opConst2u:
		return int64(c.fixed(2)), true
	case opConst2s:
		return int64(int16(c.fixed(2))), true
	case opConst4u:
		return int64(c.fixed(4)), true
	case opConst4s:
		return int64(int32(c.fixed(4))), true
	case opConstu:
		return int64(c.uleb()), true
	case opConsts:
		return c.sleb(), true
	}
	return 0, false
}

// unary applies an operation to v.
func (v *exprValue) unary(op byte, c *ehCursor) bool {
	if op == opDeref {
		if v.kind != exprReg {
			return false
		}
		v.kind = exprDeref
		return true
	}
	return v.binary(opPlus, exprValue{offset: int64(c.uleb())}, 0)
}

// binary makes v the result of v op w. codeReg is the number that stands for the
// address of the code.
func (v *exprValue) binary(op byte, w exprValue, codeReg uint64) bool {
	switch {
	case op == opPlus && v.kind == exprReg && w.kind == exprHigh && w.second == 3:
		*v = exprValue{kind: exprPLT, reg: v.reg, offset: v.offset, second: w.offset}
		return true
	case w.kind != exprConst:
		return false
	}
	switch op {
	case opPlus, opMinus:
		d := w.offset
		if op == opMinus {
			d = -d
		}
		switch v.kind {
		case exprConst, exprReg:
			v.offset += d
		case exprDeref:
			v.second += d
		default:
			return false
		}
		return true
	case opAnd:
		if v.kind != exprReg || v.reg != codeReg || v.offset != 0 || w.offset != 15 {
			return false
		}
		v.kind = exprMask
		return true
	case opGe:
		if v.kind != exprMask {
			return false
		}
		*v = exprValue{kind: exprHigh, offset: w.offset}
		return true
	case opShl:
		if v.kind != exprHigh {
			return false
		}
		v.second = w.offset
		return true
	}
	return false
}
