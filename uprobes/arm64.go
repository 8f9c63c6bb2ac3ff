package uprobes

import (
	"encoding/binary"
	"errors"
	"strconv"

	"github.com/sbxtrace/sbxtrace/symbolizer"
)

// insnARM64 is one A64 instruction word.
type insnARM64 uint32

// Registers of A64 by number. 31 is the stack pointer or the zero register.
const (
	armFP = 29
	armLR = 30
	armSP = 31
)

const (
	armNop     = 0xd503201f
	armPaciasp = 0xd503233f
	armPacibsp = 0xd503237f
)

func (in insnARM64) is(mask, value uint32) bool { return uint32(in)&mask == value }

func (in insnARM64) rd() uint8 { return uint8(in & 31) }
func (in insnARM64) rn() uint8 { return uint8(in >> 5 & 31) }

// flow returns the kind of branch and, for direct ones, the distance to the
// target in bytes.
func (in insnARM64) flow() (kind uint8, rel int32) {
	signed := func(shift, bits uint) int32 { return int32(in<<(32-bits-shift)) >> (32 - bits) * 4 }
	switch {
	case in.is(0xfc000000, 0x14000000): // b
		return flowJump, signed(0, 26)
	case in.is(0xfc000000, 0x94000000): // bl
		return flowCall, signed(0, 26)
	case in.is(0xff000000, 0x54000000), in.is(0x7e000000, 0x34000000): // b.cond, cbz, cbnz
		return flowCond, signed(5, 19)
	case in.is(0x7e000000, 0x36000000): // tbz, tbnz
		return flowCond, signed(5, 14)
	case in.is(0xfe000000, 0xd6000000): // branches to registers
		switch in >> 21 & 7 { // braa and the like differ in bit 24
		case 0:
			return flowJumpInd, 0
		case 1:
			return flowCallInd, 0
		case 2:
			return flowRet, 0
		}
		return flowStop, 0
	case in.is(0xff000000, 0xd4000000): // svc, brk, hlt
		if in&31 == 1 {
			return flowNext, 0 // svc
		}
		return flowStop, 0
	case in.is(0xffff0000, 0): // udf
		return flowStop, 0
	}
	return flowNext, 0
}

// classARM64 says what the kernel does with an instruction, and false if it
// refuses to probe it (arch/arm64/kernel/probes/decode-insn.c).
func classARM64(in insnARM64, opt *Options) (InsnClass, bool) {
	const refused = false
	switch {
	case in == armNop:
		if opt.EmulatedNops {
			return Emulated, true
		}
		return SingleStepped, true
	case in.is(0xffff0000, 0): // udf
		return SingleStepped, refused
	case in.is(0x7c000000, 0x14000000), // b, bl
		in.is(0xff000010, 0x54000000),                                                               // b.cond
		in.is(0x7c000000, 0x34000000),                                                               // cbz, cbnz, tbz, tbnz
		in.is(0xfffffc1f, 0xd61f0000), in.is(0xfffffc1f, 0xd63f0000), in.is(0xfffffc1f, 0xd65f0000), // br, blr, ret
		in.is(0x1f000000, 0x10000000): // adr, adrp
		return Emulated, true
	case in.is(0x1c000000, 0x14000000): // other branches and system instructions
		return SingleStepped, in.systemSteppable()
	case in.is(0x3b000000, 0x18000000), // loads of literals
		in.is(0x3f000000, 0x08000000), // exclusive loads and stores
		in.is(0x3b200c00, 0x19000400): // memory copy and set
		return SingleStepped, refused
	}
	return SingleStepped, true
}

// systemSteppable covers the branch, exception and system instructions that
// are not simulated.
func (in insnARM64) systemSteppable() bool {
	switch {
	case in.is(0xfe000000, 0xd6000000), // authenticated branches and returns, eret
		in.is(0xff000000, 0xd4000000), // exceptions
		in.is(0xff000000, 0x54000000), // bc.cond
		in.is(0xfff8f01f, 0xd500401f), // msr immediate
		in.is(0xfff00000, 0xd5100000): // msr
		return false
	case in.is(0xfff00000, 0xd5300000): // mrs
		return in>>5&0xffff != 0xda11 // DAIF
	case in.is(0xfffff01f, armNop): // hints
		switch in >> 5 & 0x7f {
		case 0x00, 0x07, 0x08, 0x0a, 0x18, 0x19, 0x1a, 0x1b, 0x20, 0x22, 0x24, 0x26:
			return true // nop, xpaclri, paci*, bti
		}
		return false
	}
	return true
}

// stackARM64 follows the stack pointer, as stackAMD64 does.
type stackARM64 struct {
	depth int32 // bytes the stack pointer is below its value at entry; depthUnknown
	frame int32 // depth that x29 stands for; 0 if there is no frame record
}

func (st *stackARM64) add(n int64) {
	if st.depth == depthUnknown {
		return
	}
	d := int64(st.depth) - n
	if d < 0 || d > maxDepth {
		st.depth = depthUnknown
		return
	}
	st.depth = int32(d)
}

func (st *stackARM64) step(in insnARM64, b *body) {
	switch {
	case in.is(0x3a000000, 0x28000000): // pairs
		if in.rn() == armSP && in>>23&1 == 1 {
			st.add(in.pairOffset())
		}
	case in.is(0x3b200400, 0x38000400): // single register, pre- or post-indexed
		if in.rn() == armSP {
			st.add(in.imm9())
		}
	case in.is(0xff000000, 0x91000000), in.is(0xff000000, 0xd1000000): // add, sub immediate
		imm := in.imm12()
		if in.is(0xff000000, 0x91000000) {
			imm = -imm // distance downwards
		}
		switch rd, rn := in.rd(), in.rn(); {
		case rd == armSP && rn == armSP:
			st.add(-imm)
		case rd == armSP && rn == armFP && st.frame != 0:
			st.depth = st.frame
			st.add(-imm)
		case rd == armSP:
			st.depth = depthUnknown
			b.switchesStack = b.switchesStack || imm == 0 && rn < 8 && st.frame == 0
		case rd == armFP && rn == armSP && st.depth > 0 && int64(st.depth)+imm > 0:
			st.frame = int32(int64(st.depth) + imm)
		}
	case in.is(0xbfe0001f, 0x8b20001f), in.is(0xff80001f, 0x9200001f): // add, sub extended; and
		if in.rd() == armSP {
			st.depth = depthUnknown
		}
	}
}

// pairOffset is the byte offset of an ldp or stp.
func (in insnARM64) pairOffset() int64 {
	scale := int64(4)
	if in>>26&1 == 1 {
		scale <<= in >> 30
	} else if in>>31 == 1 {
		scale = 8
	}
	return int64(int32(in<<10)>>25) * scale
}

func (in insnARM64) imm9() int64 { return int64(int32(in<<11) >> 23) }

func (in insnARM64) imm12() int64 { return int64(in>>10&0xfff) << (in >> 22 & 1 * 12) }

// scanARM64 looks at the whole body once. Instructions have one length, so the
// linear pass cannot lose its way. Compilers keep constants of this
// architecture in data sections; a literal that looks like a RET is not told
// from one.
func scanARM64(code []byte, fn *symbolizer.Function, opt *Options, s *scratch) body {
	n := int32(len(code)) &^ 3
	b := body{minTarget: n, retClass: Emulated}
	st := stackARM64{}
	for off := int32(0); off < n; off += 4 {
		if m := s.marks[off]; m&markDepth != 0 {
			st.depth = m >> markShift
		}
		in := insnARM64(binary.LittleEndian.Uint32(code[off:]))
		kind, rel := in.flow()
		switch kind {
		case flowNext:
			if !b.calls && in.is(0xffffffe0, 0xaa1e03e0) { // mov xN, x30
				b.readsReturnAddr = true
			}
			st.step(in, &b)
		case flowRet:
			if _, ok := classARM64(in, opt); !ok {
				b.retGuarded = true
				break
			}
			s.rets = append(s.rets, off)
		case flowCall:
			b.calls = true
			b.selfRecursive = b.selfRecursive || off+rel == 0
		case flowCallInd:
			b.calls = true
		case flowJump, flowCond:
			t := int64(off) + int64(rel)
			if t < 0 || t >= int64(n) {
				if b.leave(fn, fn.Addr+uint64(t), st.depth, opt) {
					if kind == flowJump {
						b.tail(off, Always, Emulated) // b: simulated
					} else {
						b.tailsUnseen = true
					}
				}
				break
			}
			b.target(int32(t))
			if t > int64(off) && s.marks[t]&markDepth == 0 {
				s.marks[t] = markOf(st.depth)
			}
		case flowJumpInd:
			if st.depth <= 0 && !armTableJump(code, off) {
				b.tailJumps, b.tailsUnseen = true, true
			}
		}
		switch kind {
		case flowRet, flowJump, flowJumpInd, flowStop:
			st.depth = depthUnknown
		}
	}
	b.rets = s.rets
	return b
}

// armTableJump reports whether the br at off goes through a table of distances:
// the address was computed by an add of a sign-extended value just before
// (add x1, x1, w2, sxth #2), or in Go loaded with a scaled index.
func armTableJump(code []byte, off int32) bool {
	rn := insnARM64(binary.LittleEndian.Uint32(code[off:])).rn()
	for i := off - 4; i >= 0 && i >= off-12; i -= 4 {
		in := insnARM64(binary.LittleEndian.Uint32(code[i:]))
		if in.rd() != rn {
			continue
		}
		return in.is(0xffe00000, 0x8b200000) || // add, extended register
			in.is(0xffe00000, 0x8b000000) || // add, shifted register
			in.is(0xffe00c00, 0xf8600800) // ldr, register offset
	}
	return false
}

// placeARM64 chooses the entry site. Few prologues of this architecture have an
// instruction that the kernel simulates, so most sites are the first byte.
func placeARM64(code []byte, fn *symbolizer.Function, opt *Options, b *body, atEntrySP bool) (entrySite, error) {
	if fn.Addr%4 != 0 || fn.Offset%4 != 0 {
		return entrySite{}, errors.New("not aligned to 4 bytes")
	}
	return placeWith(walkARM64, goStackCheckARM64, code, fn, opt, b, atEntrySP)
}

func walkARM64(code []byte, fn *symbolizer.Function, opt *Options, b *body, start int32, atEntrySP bool) (entrySite, error) {
	var (
		st       stackARM64
		ignored  body
		fallback entrySite
		found    bool
		why      = "no simulated instruction in the prologue"
	)
	for off := int32(0); off+4 <= int32(len(code)) && off < 4*maxPrologue; off += 4 {
		in := insnARM64(binary.LittleEndian.Uint32(code[off:]))
		if off > 0 && (off >= b.minTarget || opt.OtherEntry != nil && opt.OtherEntry(fn.Addr+uint64(off))) {
			why = "jump target" + atOffset(off)
			break
		}
		if off >= start {
			class, ok := classARM64(in, opt)
			ok = ok && st.depth >= 0 && st.depth <= MaxSPAdjust && st.depth%8 == 0
			if atEntrySP && st.depth != 0 {
				why = "stack pointer moved before +" + strconv.Itoa(int(off))
				break
			}
			kind, _ := in.flow()
			if ok && class != SingleStepped && kind != flowRet {
				return entrySite{off: off, class: class, sp: st.depth, reason: nameARM64(in) + atOffset(off) + ", " + class.String()}, nil
			}
			if ok && !found {
				fallback, found = entrySite{off: off, class: class, sp: st.depth}, true
			}
			if stop := passARM64(in, &st, opt, fn.Lang, atEntrySP); stop != "" {
				why = stop + atOffset(off)
				break
			}
		}
		st.step(in, &ignored)
	}
	if !found {
		return fallback, errors.New("no instruction that the kernel can probe: " + why)
	}
	fallback.reason = "+" + strconv.Itoa(int(fallback.off)) + ", " + fallback.class.String() + ": " + why
	return fallback, nil
}

// Registers that carry arguments on arm64, by number.
const (
	argRegsAAPCS   = 1<<9 - 1                  // x0 to x7, x8 (address of a large result)
	argRegsGoARM64 = 1<<16 - 1 | 1<<26 | 1<<28 // R0 to R15, closure context, g
)

// passARM64 says what forbids an entry site behind the instruction; empty if
// nothing does. keepLR asks that the link register still holds the return
// address, and nothing else does: that is where return probes put theirs.
func passARM64(in insnARM64, st *stackARM64, opt *Options, lang symbolizer.Lang, keepLR bool) string {
	kind, _ := in.flow()
	switch kind {
	case flowNext:
	case flowCall, flowCallInd:
		return "call"
	default:
		return "branch"
	}
	regs, store, known := in.effect(st)
	switch {
	case !known:
		return "instruction with wide effects"
	case keepLR && (in.touchesLR() || regs>>armLR&1 == 1):
		return "link register used"
	case store && opt.NeedArgs:
		return "memory written"
	case !opt.NeedArgs:
		return ""
	}
	args := uint32(argRegsAAPCS)
	if lang == symbolizer.LangGo {
		args = argRegsGoARM64
	}
	if regs&args != 0 {
		return "argument register changed"
	}
	return ""
}

// touchesLR reports whether the instruction signs or saves the link register.
func (in insnARM64) touchesLR() bool {
	switch {
	case in == armPaciasp, in == armPacibsp:
		return true
	case in.is(0x3e000000, 0x28000000): // pairs of general registers
		return in.rd() == armLR || in>>10&31 == armLR
	case in.is(0x3e000000, 0x38000000): // single general register
		return in.rd() == armLR
	}
	return false
}

// effect returns the general registers that an instruction writes and whether
// it stores to memory other than the function's own frame.
func (in insnARM64) effect(st *stackARM64) (regs uint32, store, known bool) {
	const noReg = 1 << armSP // the stack pointer is followed, the zero register is none
	write := func(r uint8) { regs |= 1 << r &^ noReg }
	switch {
	case in.is(0x1c000000, 0x10000000): // data processing, immediate
		write(in.rd())
		return regs, false, true
	case in.is(0x0e000000, 0x0a000000): // data processing, register
		write(in.rd())
		return regs, false, true
	case in.is(0x3a000000, 0x28000000): // pairs
		if in>>22&1 == 1 {
			if in>>26&1 == 0 {
				write(in.rd())
				write(uint8(in >> 10 & 31))
			}
		} else {
			store = in.rn() != armSP || in>>23&3 == 2 && in.pairOffset() >= int64(st.depth)
		}
		if in>>23&1 == 1 {
			write(in.rn())
		}
		return regs, store, true
	case in.is(0x3b200c00, 0x38200000), in.is(0x3f800000, 0x08800000): // atomic read-modify-write, acquire and release
		write(in.rd())
		write(uint8(in >> 16 & 31))
		return regs, true, true
	case in.is(0x3b000000, 0x18000000): // literals
		write(in.rd())
		return regs, false, true
	case in.is(0x3b000000, 0x38000000), in.is(0x3b000000, 0x39000000): // single register
		isLoad := in>>22&3 != 0
		if in>>26&1 == 1 {
			isLoad = in>>22&1 != 0
		} else if isLoad {
			write(in.rd())
		}
		store = !isLoad && (in.rn() != armSP || in.is(0x01000000, 0) && in.is(0x00200000, 0x00200000))
		if in.is(0x3b200400, 0x38000400) {
			write(in.rn())
		}
		return regs, store, true
	case in.is(0xfffff01f, armNop): // hints: nop, bti, paciasp
		return 0, false, true
	case in.is(0xfff00000, 0xd5300000): // mrs
		write(in.rd())
		return regs, false, true
	case in.is(0xfff00000, 0xd5100000), in.is(0xfff8f01f, 0xd500401f): // msr
		return 0, false, true
	}
	// Exclusive loads are here, too: a probe behind one takes the reservation
	// away, and the store that waits for it would fail forever.
	return 0, false, false
}

// goStackCheckARM64 returns the offset of the first instruction after Go's
// check for stack space, 0 if there is none: g (x28) holds the limit at 16, or
// 24 on the system stack; the compare is with sp or with x17 = sp - frame; b.ls
// branches to the call of morestack.
//
//	ldr x16, [x28, #16]; cmp sp, x16; b.ls grow
//	ldr x16, [x28, #16]; sub x17, sp, #n; cmp x17, x16; b.ls grow
//	ldr x16, [x28, #16]; subs x17, sp, x27; b.lo grow; cmp x17, x16; b.ls grow
func goStackCheckARM64(code []byte) int32 {
	const maxCheck = 8
	loaded := false
	for off := int32(0); off < 4*maxCheck && off+4 <= int32(len(code)); off += 4 {
		in := insnARM64(binary.LittleEndian.Uint32(code[off:]))
		switch {
		case in == 0xf9400b90, in == 0xf9400f90: // ldr x16, [x28, #16] or #24
			loaded = true
		case in.is(0xff00001f, 0x54000009): // b.ls
			if loaded {
				return off + 4
			}
			return 0
		case in.is(0xff00001f, 0x54000003): // b.lo
		default:
			kind, _ := in.flow()
			regs, store, known := in.effect(&stackARM64{})
			if kind != flowNext || store || !known || regs&^(1<<16|1<<17|1<<27) != 0 {
				return 0
			}
		}
	}
	return 0
}

// nameARM64 names a simulated instruction for Site.Reason.
func nameARM64(in insnARM64) string {
	switch kind, _ := in.flow(); kind {
	case flowJump:
		return "b"
	case flowCall:
		return "bl"
	case flowCond:
		switch {
		case in.is(0xff000000, 0x54000000):
			return "b.cond"
		case in.is(0x7e000000, 0x34000000):
			return "cbz"
		}
		return "tbz"
	case flowJumpInd:
		return "br"
	case flowCallInd:
		return "blr"
	case flowRet:
		return "ret"
	}
	if in == armNop {
		return "nop"
	}
	return "adr"
}
