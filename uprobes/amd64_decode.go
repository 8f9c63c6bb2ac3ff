package uprobes

import "encoding/binary"

// Opcode maps of x86-64, as selected by escape bytes or by a VEX, EVEX or XOP
// prefix.
const (
	mapOne  = 0 // one-byte opcodes
	map0F   = 1
	map0F38 = 2
	map0F3A = 3
)

// Encodings of an instruction's prefix.
const (
	encLegacy = iota
	encVEX
	encEVEX
	encXOP
)

// Kinds of instructions by what they do to the flow of control.
const (
	flowNext    = iota // falls through
	flowRet            // near return
	flowJump           // unconditional, direct
	flowCond           // conditional, direct
	flowJumpInd        // unconditional, indirect
	flowCall           // direct
	flowCallInd        // indirect
	flowStop           // never continues: ud2, hlt, int3
)

// insnAMD64 is one decoded instruction: its length and what placement asks.
// Operands that nobody asks for are not decoded.
type insnAMD64 struct {
	length uint8
	enc    uint8 // encLegacy, …
	opMap  uint8
	op     uint8
	modrm  uint8
	sib    uint8
	rex    uint8 // 0 if absent; for VEX, EVEX and XOP the equivalent bits W, R, X, B; bit 7: R' of EVEX
	vvvv   uint8 // second source register of VEX, EVEX and XOP
	flow   uint8
	prefix uint8 // prefixData16, …
	disp   int32 // of the memory operand
	imm    int32 // immediate or branch displacement; only the last 4 bytes of a mov imm64
}

// Legacy prefixes seen, and whether there is a ModRM byte.
const (
	prefixData16 = 1 << iota
	prefixRep    // f3
	prefixRepne  // f2
	prefixLock   // f0
	prefixSeg    // es, cs, ss, ds: no function in 64-bit mode (3e before a jump: notrack)
	prefixFSGS   // fs, gs
	prefixAddr32 // 67
	hasModRM
)

// Attributes of an opcode: what follows it.
const (
	opModRM = 1 << iota
	opImm8
	opImm16
	opImmZ // 4 bytes, 2 with an operand-size prefix
	opImmV // as opImmZ, but 8 with REX.W
	opRel  // opImm8 or opImmZ is a displacement from the next instruction; 66 does not shorten it
	opBad
)

// oneByte are the attributes of the one-byte opcodes in 64-bit mode (Intel SDM
// volume 2, appendix A). Prefixes never get here.
var oneByte = func() (t [256]uint8) {
	for op := 0; op < 0x40; op++ {
		switch op & 7 {
		case 0, 1, 2, 3:
			t[op] = opModRM
		case 4:
			t[op] = opImm8
		case 5:
			t[op] = opImmZ
		default:
			t[op] = opBad
		}
	}
	for op := 0x70; op < 0x80; op++ {
		t[op] = opImm8 | opRel
	}
	for op := 0xb0; op < 0xc0; op++ {
		t[op] = opImm8
		if op >= 0xb8 {
			t[op] = opImmV
		}
	}
	for op := 0xd8; op < 0xe0; op++ {
		t[op] = opModRM
	}
	set := func(attr uint8, ops ...byte) {
		for _, op := range ops {
			t[op] = attr
		}
	}
	set(opBad, 0x0f, 0x60, 0x61, 0x62, 0x82, 0x9a, 0xc4, 0xc5, 0xce, 0xd4, 0xd5, 0xd6, 0xea)
	set(opModRM, 0x63, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8b, 0x8c, 0x8d, 0x8e, 0x8f)
	set(opModRM, 0xd0, 0xd1, 0xd2, 0xd3, 0xf6, 0xf7, 0xfe, 0xff)
	set(opImmZ, 0x68, 0xa9)
	set(opImm8, 0x6a, 0xa8, 0xcd, 0xe4, 0xe5, 0xe6, 0xe7)
	set(opModRM|opImmZ, 0x69, 0x81, 0xc7)
	set(opModRM|opImm8, 0x6b, 0x80, 0x83, 0xc0, 0xc1, 0xc6)
	set(opImm16, 0xc2, 0xca)
	set(opImm16|opImm8, 0xc8)
	set(opImm8|opRel, 0xe0, 0xe1, 0xe2, 0xe3, 0xeb)
	set(opImmZ|opRel, 0xe8, 0xe9)
	return t
}()

// twoByte are the attributes of the opcodes after 0f.
var twoByte = func() (t [256]uint8) {
	for op := range t {
		t[op] = opModRM
	}
	set := func(attr uint8, ops ...byte) {
		for _, op := range ops {
			t[op] = attr
		}
	}
	set(0, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0b, 0x0e, 0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x37, 0x77)
	set(0, 0xa0, 0xa1, 0xa2, 0xa8, 0xa9, 0xaa, 0xc8, 0xc9, 0xca, 0xcb, 0xcc, 0xcd, 0xce, 0xcf)
	set(opBad, 0x04, 0x0a, 0x0c, 0x24, 0x25, 0x26, 0x27, 0x36, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f)
	set(opModRM|opImm8, 0x0f, 0x70, 0x71, 0x72, 0x73, 0xa4, 0xac, 0xba, 0xc2, 0xc4, 0xc5, 0xc6)
	for op := 0x80; op < 0x90; op++ {
		t[op] = opImmZ | opRel
	}
	return t
}()

// prefixBits maps a byte to its legacy prefix bit; 0 for other bytes.
var prefixBits = [256]uint8{
	0x26: prefixSeg, 0x2e: prefixSeg, 0x36: prefixSeg, 0x3e: prefixSeg,
	0x64: prefixFSGS, 0x65: prefixFSGS, 0x66: prefixData16, 0x67: prefixAddr32,
	0xf0: prefixLock, 0xf2: prefixRepne, 0xf3: prefixRep,
}

// maxInsn is the longest instruction the processor accepts, in bytes.
const maxInsn = 15

// decodeAMD64 decodes the instruction at the start of code. It returns false
// for bytes that are no 64-bit instruction and for one that is cut off. It
// knows lengths and control flow of all encodings up to AVX-512 and the XOP
// ones, without knowing each instruction: the length never depends on it.
func decodeAMD64(code []byte, in *insnAMD64) bool {
	*in = insnAMD64{}
	if len(code) > maxInsn {
		code = code[:maxInsn]
	}
	i := 0
	for ; i < len(code); i++ {
		if p := prefixBits[code[i]]; p != 0 {
			in.prefix |= p
			in.rex = 0 // a REX byte counts only right before the opcode
		} else if code[i]&0xf0 == 0x40 {
			in.rex = code[i]
		} else {
			break
		}
	}
	if i >= len(code) {
		return false
	}
	op := code[i]
	i++
	var attr uint8
	switch op {
	case 0x0f:
		if i >= len(code) {
			return false
		}
		op = code[i]
		i++
		switch op {
		case 0x38, 0x3a:
			if i >= len(code) {
				return false
			}
			in.opMap, attr = map0F38, opModRM
			if op == 0x3a {
				in.opMap, attr = map0F3A, opModRM|opImm8
			}
			op = code[i]
			i++
		default:
			in.opMap, attr = map0F, twoByte[op]
			if op == 0x78 && in.prefix&(prefixData16|prefixRepne) != 0 {
				attr = opModRM | opImm16 // SSE4a extrq, insertq: two immediate bytes
			}
		}
	case 0xc4, 0xc5, 0x62:
		return in.decodeVector(code, i, op)
	case 0x8f:
		if i < len(code) && code[i]&0x1f >= 8 {
			return in.decodeVector(code, i, op)
		}
		attr = oneByte[op]
	default:
		attr = oneByte[op]
	}
	in.op = op
	if attr&opBad != 0 {
		return false
	}
	return in.decodeRest(code, i, attr)
}

// decodeVector decodes from the second byte of a VEX (c4, c5), EVEX (62) or XOP
// (8f) prefix on. The prefixes 66, f2, f3 and lock and a REX byte are not
// allowed before these.
func (in *insnAMD64) decodeVector(code []byte, i int, lead byte) bool {
	prefixLen := 2
	switch lead {
	case 0xc5:
		prefixLen = 1
	case 0x62:
		prefixLen = 3
	}
	if i+prefixLen >= len(code) || in.rex != 0 ||
		in.prefix&(prefixData16|prefixRep|prefixRepne|prefixLock) != 0 {
		return false
	}
	p0 := code[i]
	p1 := p0
	in.enc, in.opMap = encVEX, map0F
	in.rex = 0x40 | ^p0>>5&4 // R, inverted
	if lead != 0xc5 {
		p1 = code[i+1]
		in.opMap = p0 & 0x1f
		in.rex = 0x40 | ^p0>>5&7 | p1>>4&8
	}
	switch lead {
	case 0x62:
		in.enc, in.opMap = encEVEX, p0&7
		in.rex |= ^p0 << 3 & 0x80
	case 0x8f:
		in.enc = encXOP
	}
	in.vvvv = ^p1 >> 3 & 15
	in.prefix |= [4]uint8{0, prefixData16, prefixRep, prefixRepne}[p1&3]
	i += prefixLen
	in.op = code[i]
	i++
	attr := uint8(opModRM)
	switch {
	case in.enc == encXOP && in.opMap == 8:
		attr |= opImm8
	case in.enc == encXOP && in.opMap == 9:
	case in.enc == encXOP && in.opMap == 10:
		attr |= opImmZ
		in.prefix &^= prefixData16
	case in.enc == encXOP:
		return false
	case in.opMap == map0F:
		switch in.op {
		case 0x70, 0x71, 0x72, 0x73, 0xc2, 0xc4, 0xc5, 0xc6:
			attr |= opImm8
		case 0x77: // vzeroupper, vzeroall
			attr = 0
		}
	case in.opMap == map0F38:
	case in.opMap == map0F3A:
		attr |= opImm8
	case in.enc == encEVEX && (in.opMap == 5 || in.opMap == 6): // AVX512-FP16
	default:
		return false
	}
	return in.decodeRest(code, i, attr)
}

// decodeRest decodes what follows the opcode: ModRM, SIB, displacement and
// immediate.
func (in *insnAMD64) decodeRest(code []byte, i int, attr uint8) bool {
	if attr&opModRM != 0 {
		if i >= len(code) {
			return false
		}
		m := code[i]
		in.modrm = m
		in.prefix |= hasModRM
		i++
		dispLen := 0
		switch mod := m >> 6; {
		case mod == 3:
		case m&7 == 4:
			if i >= len(code) {
				return false
			}
			in.sib = code[i]
			i++
			if mod == 0 && in.sib&7 == 5 {
				dispLen = 4
			} else if mod > 0 {
				dispLen = int(mod) * int(mod) // 1: 1 byte, 2: 4 bytes
			}
		case mod == 0:
			if m&7 == 5 { // relative to the instruction pointer
				dispLen = 4
			}
		default:
			dispLen = int(mod) * int(mod)
		}
		if i+dispLen > len(code) {
			return false
		}
		switch dispLen {
		case 1:
			in.disp = int32(int8(code[i]))
		case 4:
			in.disp = int32(binary.LittleEndian.Uint32(code[i:]))
		}
		i += dispLen
		if in.opMap == mapOne && in.enc == encLegacy {
			switch {
			case in.op == 0xf6 && m>>3&7 < 2: // test
				attr |= opImm8
			case in.op == 0xf7 && m>>3&7 < 2:
				attr |= opImmZ
			}
		}
	}
	n := 0
	if attr&opImm8 != 0 {
		n++
	}
	if attr&opImm16 != 0 {
		n += 2
	}
	if attr&(opImmZ|opImmV) != 0 {
		switch {
		case attr&opImmV != 0 && in.rex&8 != 0:
			n += 8
		case in.prefix&prefixData16 != 0 && in.rex&8 == 0 && attr&opRel == 0:
			n += 2
		default:
			n += 4
		}
	}
	if in.enc == encLegacy && in.opMap == mapOne && in.op >= 0xa0 && in.op <= 0xa3 {
		n = 8 // moffs: a full address
		if in.prefix&prefixAddr32 != 0 {
			n = 4
		}
	}
	if i+n > len(code) {
		return false
	}
	switch n {
	case 1:
		in.imm = int32(int8(code[i]))
	case 2:
		in.imm = int32(int16(binary.LittleEndian.Uint16(code[i:])))
	case 3: // enter
		in.imm = int32(binary.LittleEndian.Uint16(code[i:]))
	case 4:
		in.imm = int32(binary.LittleEndian.Uint32(code[i:]))
	case 8:
		in.imm = int32(binary.LittleEndian.Uint32(code[i+4:]))
	}
	in.length = uint8(i + n)
	if in.enc == encLegacy {
		in.flow = in.flowKind()
	}
	return true
}

func (in *insnAMD64) flowKind() uint8 {
	op := in.op
	switch in.opMap {
	case mapOne:
		switch {
		case op < 0x70:
		case op < 0x80, op >= 0xe0 && op <= 0xe3:
			return flowCond
		case op < 0xc2:
		case op == 0xc2 || op == 0xc3:
			return flowRet
		case op == 0xc7 && in.modrm == 0xf8: // xbegin
			return flowCond
		case op == 0xcc, op == 0xf1, op == 0xf4, op == 0xcf, op == 0xca, op == 0xcb:
			return flowStop
		case op == 0xe8:
			return flowCall
		case op == 0xe9 || op == 0xeb:
			return flowJump
		case op == 0xff:
			switch in.reg() {
			case 2, 3:
				return flowCallInd
			case 4, 5:
				return flowJumpInd
			}
		}
	case map0F:
		switch {
		case op >= 0x80 && op < 0x90:
			return flowCond
		case op == 0x0b, op == 0xb9, op == 0xff, op == 0x07, op == 0x35:
			return flowStop
		}
	}
	return flowNext
}

// reg is the opcode extension in ModRM, without REX.
func (in *insnAMD64) reg() uint8 { return in.modrm >> 3 & 7 }

// regNum is the register that ModRM.reg names, 0 to 15.
func (in *insnAMD64) regNum() uint8 { return in.modrm>>3&7 | in.rex<<1&8 }

// highVector reports whether ModRM.reg names one of the vector registers 16 to 31,
// which no calling convention gives a meaning.
func (in *insnAMD64) highVector() bool { return in.rex&0x80 != 0 }

// rmNum is the register that ModRM.rm names when it is not memory.
func (in *insnAMD64) rmNum() uint8 { return in.modrm&7 | in.rex<<3&8 }

// isMem reports whether the ModRM operand is memory.
func (in *insnAMD64) isMem() bool { return in.prefix&hasModRM != 0 && in.modrm < 0xc0 }

// Bases of memory operands beside the 16 registers.
const (
	baseNone = 16 // absolute, or an index alone
	baseRIP  = 17
)

// mem returns base and index of the memory operand; index is baseNone if
// there is none.
func (in *insnAMD64) mem() (base, index uint8) {
	mod := in.modrm >> 6
	if in.modrm&7 != 4 {
		if mod == 0 && in.modrm&7 == 5 {
			return baseRIP, baseNone
		}
		return in.modrm&7 | in.rex<<3&8, baseNone
	}
	base = in.sib&7 | in.rex<<3&8
	index = in.sib>>3&7 | in.rex<<2&8
	if index == regRSP {
		index = baseNone
	}
	if mod == 0 && in.sib&7 == 5 {
		base = baseNone
	}
	return base, index
}

// General registers by their number in instructions.
const (
	regRAX = iota
	regRCX
	regRDX
	regRBX
	regRSP
	regRBP
	regRSI
	regRDI
	regR8
	regR9
	regR10
	regR11
	regR12
	regR13
	regR14
	regR15
)
