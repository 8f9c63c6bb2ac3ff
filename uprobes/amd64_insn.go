package uprobes

import "strings"

// goodInsnsAMD64 are the one-byte opcodes that the kernel agrees to probe in
// 64-bit programs (arch/x86/kernel/uprobes.c, good_insns_64), one bit per
// opcode, rows of 16. Instructions with a VEX or EVEX prefix are looked up here
// by their opcode byte, too, whatever their opcode map: that is what the kernel
// does, and why it refuses vpxor (ef).
var goodInsnsAMD64 = [16]uint16{
	0x0: 0xbf3f, 0x1: 0x3f3f, 0x2: 0x7f7f, 0x3: 0x7f7f,
	0x4: 0xffff, 0x5: 0xffff, 0x6: 0x0ff8, 0x7: 0xffff,
	0x8: 0xfffb, 0x9: 0xfbff, 0xa: 0xffff, 0xb: 0xffff,
	0xc: 0x0fff, 0xd: 0xff8f, 0xe: 0x0b0f, 0xf: 0xf3ed,
}

// classAMD64 says what the kernel does with an instruction, and false if it
// refuses to probe it. insn are its bytes.
func classAMD64(insn []byte, in *insnAMD64, opt *Options) (InsnClass, bool) {
	if in.prefix&(prefixLock|prefixSeg) != 0 || in.enc == encXOP {
		return SingleStepped, false
	}
	if in.enc != encLegacy {
		return SingleStepped, goodInsnsAMD64[in.op>>4]>>(in.op&15)&1 != 0 && !mistakenAMD64(in.op)
	}
	switch in.opMap {
	case mapOne:
		return classOneByteAMD64(in)
	case map0F:
		switch op := in.op; {
		case op >= 0x80 && op < 0x90: // jcc
			return Emulated, in.prefix&prefixData16 == 0
		case op == 0x1f && isKernelNop(insn):
			switch {
			case opt.Optimized5ByteNop && len(insn) == 5:
				return Nop5Optimized, true
			case opt.Optimized5ByteNop || opt.EmulatedNops:
				return Emulated, true
			}
		case op == 0x05, op == 0x0b, op == 0x34, op == 0xb9, op == 0xff:
			// syscall, sysenter and the undefined instructions: the kernel would
			// step a system call, which is fragile, and an exception is one.
			return SingleStepped, false
		}
	}
	return SingleStepped, true
}

// mistakenAMD64 reports whether the kernel takes a VEX or EVEX instruction with
// this opcode for the one-byte instruction of the same number, and instead of
// stepping it emulates a jump, a call or a nop (branch_setup_xol_ops), or fixes
// up what popf, far calls and returns would have done (arch_uprobe_analyze_insn,
// arch/x86/kernel/uprobes.c): vpor would have no effect, vfnmadd132ss end in a trap.
// What it could take for push is saved by its length.
func mistakenAMD64(op uint8) bool {
	switch op {
	case 0x90, 0x9a, 0x9d, 0xc2, 0xc3, 0xca, 0xcb, 0xe8, 0xe9, 0xea, 0xeb, 0xff:
		return true
	}
	return op >= 0x70 && op < 0x80
}

func classOneByteAMD64(in *insnAMD64) (InsnClass, bool) {
	op := in.op
	if goodInsnsAMD64[op>>4]>>(op&15)&1 == 0 {
		return SingleStepped, false
	}
	switch {
	case op >= 0x50 && op <= 0x57: // push reg, with no prefix but REX.B
		if in.length == 1 || in.length == 2 && in.rex == 0x41 {
			return Emulated, true
		}
	case op >= 0x70 && op < 0x80, op == 0xe8, op == 0xe9, op == 0xeb:
		return Emulated, in.prefix&prefixData16 == 0
	case op == 0x90:
		// With REX.B it is xchg %r8, which kernels before 6.16 take for nop.
		return Emulated, in.rex&1 == 0
	case op == 0x8e && in.reg() == 2: // mov to ss masks exceptions
		return SingleStepped, false
	case op == 0xc7 && in.modrm == 0xf8, op == 0xc6 && in.modrm == 0xf8: // xbegin, xabort
		return SingleStepped, false
	}
	return SingleStepped, true
}

// kernelNops are the multi-byte nops that the kernel recognises (x86_nops in
// arch/x86/kernel/alternative.c), as Intel recommends them.
var kernelNops = [9]string{
	3: "\x0f\x1f\x00",
	4: "\x0f\x1f\x40\x00",
	5: "\x0f\x1f\x44\x00\x00",
	6: "\x66\x0f\x1f\x44\x00\x00",
	7: "\x0f\x1f\x80\x00\x00\x00\x00",
	8: "\x0f\x1f\x84\x00\x00\x00\x00\x00",
}

func isKernelNop(insn []byte) bool {
	return len(insn) < len(kernelNops) && kernelNops[len(insn)] == string(insn)
}

// effectOfInsn is what an instruction changes apart from flags, flow of control
// and the stack pointer, which stackAMD64 follows.
type effectOfInsn struct {
	regs   uint32 // general registers written, by number
	vector uint32 // vector registers written, by number modulo 16
	store  bool   // memory written through the ModRM operand
	opaque bool   // more than that, or unknown
}

// Registers that carry arguments, by number.
const (
	// C: rdi, rsi, rdx, rcx, r8, r9, al (how many vector registers a variadic
	// call uses) and r10 (static chain).
	argRegsSysV    = 1<<regRDI | 1<<regRSI | 1<<regRDX | 1<<regRCX | 1<<regR8 | 1<<regR9 | 1<<regRAX | 1<<regR10
	argVectorsSysV = 1<<8 - 1
	// Go's ABIInternal: nine integer registers, rdx (closure context), r14 (g).
	argRegsGo = 1<<regRAX | 1<<regRBX | 1<<regRCX | 1<<regRDI | 1<<regRSI | 1<<regR8 | 1<<regR9 | 1<<regR10 | 1<<regR11 |
		1<<regRDX | 1<<regR14
	argVectorsGo = 1<<15 - 1
)

// effectAMD64 knows the instructions found in prologues; all others are opaque.
func effectAMD64(in *insnAMD64) (e effectOfInsn) {
	if in.enc != encLegacy {
		return in.vectorEffect()
	}
	switch in.opMap {
	case mapOne:
		in.oneByteEffect(&e)
	case map0F:
		in.twoByteEffect(&e)
	default:
		e.opaque = true
	}
	return e
}

// writesRM notes a write to the ModRM operand, register or memory.
func (in *insnAMD64) writesRM(e *effectOfInsn, byteSized bool) {
	if in.isMem() {
		e.store = true
		return
	}
	e.regs |= 1 << in.byteReg(in.rmNum(), byteSized)
}

// byteReg translates ah, ch, dh and bh, which have the numbers of spl to dil
// when there is no REX prefix.
func (in *insnAMD64) byteReg(n uint8, byteSized bool) uint8 {
	if byteSized && in.rex == 0 && n >= 4 && n < 8 {
		return n - 4
	}
	return n
}

func (in *insnAMD64) oneByteEffect(e *effectOfInsn) {
	op := in.op
	byteSized := op&1 == 0
	reg := func() { e.regs |= 1 << in.byteReg(in.regNum(), byteSized) }
	switch {
	case op < 0x40: // arithmetic
		switch {
		case op >= 0x38: // cmp
		case op&7 < 2:
			in.writesRM(e, byteSized)
		case op&7 < 4:
			reg()
		default:
			e.regs = 1 << regRAX
		}
	case op >= 0x50 && op < 0x58, op == 0x68, op == 0x6a: // push
	case op >= 0x58 && op < 0x60: // pop
		e.regs = 1 << (op&7 | in.rex<<3&8)
	case op == 0x63, op == 0x69, op == 0x6b, op == 0x8b, op == 0x8d:
		e.regs = 1 << in.regNum()
	case op == 0x8a:
		reg()
	case op == 0x80, op == 0x81, op == 0x83:
		// cmp changes nothing, nor does or $0: locked, it is a memory barrier.
		if in.reg() != 7 && !(in.reg() == 1 && in.imm == 0) {
			in.writesRM(e, byteSized)
		}
	case op == 0x84, op == 0x85, op == 0xa8, op == 0xa9: // test
	case op == 0x86, op == 0x87: // xchg
		reg()
		in.writesRM(e, byteSized)
	case op == 0x88, op == 0x89, op == 0xc6, op == 0xc7, op == 0xc0, op == 0xc1, op >= 0xd0 && op <= 0xd3:
		in.writesRM(e, byteSized)
	case op >= 0x90 && op < 0x98:
		if op != 0x90 || in.rex&1 != 0 {
			e.regs = 1<<regRAX | 1<<(op&7|in.rex<<3&8)
		}
	case op == 0x98:
		e.regs = 1 << regRAX
	case op == 0x99:
		e.regs = 1 << regRDX
	case op >= 0xb0 && op < 0xb8:
		e.regs = 1 << in.byteReg(op&7|in.rex<<3&8, true)
	case op >= 0xb8 && op < 0xc0:
		e.regs = 1 << (op&7 | in.rex<<3&8)
	case op == 0xc9: // leave
		e.regs = 1 << regRBP
	case op >= 0xd8 && op < 0xe0: // x87; loads are taken for stores
		e.store = in.isMem()
		if op == 0xdf && in.modrm == 0xe0 { // fnstsw
			e.regs = 1 << regRAX
		}
	case op == 0xf6, op == 0xf7:
		switch in.reg() {
		case 0, 1: // test
		case 2, 3: // not, neg
			in.writesRM(e, byteSized)
		default: // mul, div
			e.regs = 1<<regRAX | 1<<regRDX
		}
	case op == 0xfe, op == 0xff:
		switch in.reg() {
		case 0, 1: // inc, dec
			in.writesRM(e, byteSized)
		case 6: // push
		default:
			e.opaque = true
		}
	default:
		e.opaque = true
	}
}

func (in *insnAMD64) twoByteEffect(e *effectOfInsn) {
	xmm := func() { e.vector = 1 << in.regNum() }
	store := func() {
		if in.isMem() {
			e.store = true
		} else {
			e.vector = 1 << in.rmNum()
		}
	}
	switch op := in.op; {
	case op == 0x0d, op >= 0x18 && op <= 0x1f: // prefetch, hints: endbr64, nop
	case op == 0x10, op == 0x12, op == 0x14, op == 0x15, op == 0x16, op == 0x28, op == 0x2a, op == 0x6e, op == 0x6f:
		xmm()
	case op == 0x11, op == 0x13, op == 0x17, op == 0x29, op == 0x2b, op == 0x7f, op == 0xd6, op == 0xe7:
		store()
	case op == 0x2e, op == 0x2f, op == 0xa3: // ucomis, comis, bt
	case op == 0x7e:
		switch {
		case in.prefix&prefixRep != 0:
			xmm()
		default:
			in.writesRM(e, false)
		}
	case op == 0x2c, op == 0x2d, op == 0x50, op == 0xc5, op == 0xd7, // to general registers
		op >= 0x40 && op < 0x50, // cmov
		op == 0xaf, op == 0xb6, op == 0xb7, op == 0xb8, op == 0xbc, op == 0xbd, op == 0xbe, op == 0xbf:
		e.regs = 1 << in.regNum()
	case op >= 0x90 && op < 0xa0: // setcc
		in.writesRM(e, true)
	case op == 0xb0, op == 0xb1: // cmpxchg
		e.regs = 1 << regRAX
		in.writesRM(e, op == 0xb0)
	case op == 0xc0, op == 0xc1: // xadd
		e.regs = 1 << in.byteReg(in.regNum(), op == 0xc0)
		in.writesRM(e, op == 0xc0)
	case op == 0xa4, op == 0xa5, op == 0xab, op == 0xac, op == 0xad, op == 0xb3, op == 0xba, op == 0xbb: // shld, shrd, bts, btr, btc
		in.writesRM(e, false)
	case op == 0x31: // rdtsc
		e.regs = 1<<regRAX | 1<<regRDX
	case op >= 0xc8 && op < 0xd0: // bswap
		e.regs = 1 << (op&7 | in.rex<<3&8)
	case op == 0xa2: // cpuid
		e.regs = 1<<regRAX | 1<<regRBX | 1<<regRCX | 1<<regRDX
	case op >= 0x51 && op <= 0x6d, op >= 0x70 && op <= 0x76, op >= 0xd1 && op <= 0xf6, op >= 0xf8 && op <= 0xfe, op == 0xc2, op == 0xc4, op == 0xc6:
		// Vector arithmetic; the shifts by immediate (71 to 73) name their
		// destination in ModRM.rm.
		e.vector = 1<<in.regNum() | 1<<in.rmNum()
	default:
		e.opaque = true
	}
}

// vectorEffect covers VEX and EVEX: moves, and arithmetic that writes one vector
// or mask register.
func (in *insnAMD64) vectorEffect() (e effectOfInsn) {
	op := in.op
	switch {
	case in.opMap == map0F && op == 0x77: // vzeroupper
	case in.opMap == map0F && (op == 0x2e || op == 0x2f): // vucomis, vcomis
	case in.opMap == map0F && (op == 0x11 || op == 0x29 || op == 0x2b || op == 0x7f || op == 0xd6 || op == 0xe7):
		if in.isMem() {
			e.store = true
		} else {
			e.vector = 1 << in.rmNum()
		}
	case in.opMap == map0F && op >= 0x71 && op <= 0x73: // shifts by an immediate
		e.vector = 1 << in.vvvv
	case in.opMap == map0F && op == 0x7e && in.prefix&prefixRep == 0: // vmovd
		in.writesRM(&e, false)
	case in.opMap == map0F && (op == 0x50 || op == 0xd7): // masks of signs
		e.regs = 1 << in.regNum()
	case in.opMap == map0F && (op >= 0x64 && op <= 0x66 || op >= 0x74 && op <= 0x76 || op == 0xc2), // compare; EVEX: to a mask register
		in.opMap == map0F && (op == 0x10 || op == 0x14 || op == 0x15 || op == 0x28 || op == 0x2a || op == 0x51 ||
			op >= 0x54 && op <= 0x63 || op >= 0x67 && op <= 0x70 || op == 0x7c || op == 0x7d || op == 0xc6 ||
			op >= 0xd1 && op <= 0xd5 || op >= 0xd8 && op <= 0xe6 || op >= 0xe8 && op <= 0xef ||
			op >= 0xf1 && op <= 0xf6 || op >= 0xf8 && op <= 0xfe),
		in.opMap == map0F38 && (op == 0x18 || op == 0x19 || op == 0x1a || op == 0x58 || op == 0x59 || op == 0x5a || // broadcasts
			op >= 0x78 && op <= 0x7c || op&15 >= 6 && (op>>4 == 9 || op>>4 == 10 || op>>4 == 11)): // fused multiply and add
		if !in.highVector() {
			e.vector = 1 << in.regNum()
		}
	default:
		e.opaque = true
	}
	return e
}

var (
	regNames64 = strings.Fields("rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15")
	condNames  = strings.Fields("jo jno jb jae je jne jbe ja js jns jp jnp jl jge jle jg")
)

// nameAMD64 names an emulated instruction for Site.Reason.
func nameAMD64(insn []byte, in *insnAMD64) string {
	switch op := in.op; {
	case in.opMap == map0F && op == 0x1f, op == 0x90:
		if len(insn) == 1 {
			return "nop"
		}
		return string('0'+rune(len(insn))) + "-byte nop"
	case in.opMap == map0F && op >= 0x80 && op < 0x90, in.opMap == mapOne && op >= 0x70 && op < 0x80:
		return condNames[op&15]
	case op >= 0x50 && op < 0x58:
		return "push %" + regNames64[op&7|in.rex<<3&8]
	case op == 0xe8:
		return "call"
	case op == 0xe9 || op == 0xeb:
		return "jmp"
	}
	return "instruction"
}
