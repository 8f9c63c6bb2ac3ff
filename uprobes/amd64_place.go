package uprobes

import (
	"errors"
	"strconv"

	"github.com/sbxtrace/sbxtrace/symbolizer"
)

// maxPrologue is how far from the first byte an entry site may lie, in
// instructions. Prologues of C and Go have their first push well before.
const maxPrologue = 24

// placeAMD64 walks the straight line from the first byte to the first
// instruction that the kernel emulates and that every call executes exactly
// once with the arguments still in place. atEntrySP requires that the stack
// pointer still points to the return address, as return probes do.
func placeAMD64(code []byte, fn *symbolizer.Function, opt *Options, b *body, atEntrySP bool) (entrySite, error) {
	if fn.Lang == symbolizer.LangGo {
		if start := goStackCheckAMD64(code); start > 0 {
			// The check runs again after the stack grew: take what follows it.
			if site, err := walkAMD64(code, fn, opt, b, start, atEntrySP); err == nil {
				return site, nil
			}
		}
	}
	return walkAMD64(code, fn, opt, b, 0, atEntrySP)
}

// walkAMD64 looks for the entry site from offset start on, falling back to the
// first instruction there that can be probed at all.
func walkAMD64(code []byte, fn *symbolizer.Function, opt *Options, b *body, start int32, atEntrySP bool) (entrySite, error) {
	var (
		in       insnAMD64
		st       stackAMD64
		ignored  body
		fallback entrySite
		found    bool
		why      = "no emulated instruction in the prologue"
	)
	for off, i := int32(0), 0; off < int32(len(code)) && i < maxPrologue; i++ {
		at := " at +" + strconv.Itoa(int(off))
		if !decodeAMD64(code[off:], &in) {
			why = "undecodable bytes" + at
			break
		}
		if off > 0 && (off >= b.minTarget || opt.OtherEntry != nil && opt.OtherEntry(fn.Addr+uint64(off))) {
			why = "jump target" + at
			break
		}
		insn := code[off : off+int32(in.length)]
		if off >= start {
			class, ok := classAMD64(insn, &in, opt)
			ok = ok && st.depth >= 0 && st.depth <= MaxSPAdjust && st.depth%8 == 0
			if atEntrySP && st.depth != 0 {
				why = "stack pointer moved before +" + strconv.Itoa(int(off))
				break
			}
			if ok && class == Nop5Optimized && st.depth == 0 && !onlyNops(code[:off]) {
				ok = false // the trampoline's call would write where a leaf keeps its variables
			}
			if ok && class != SingleStepped {
				return entrySite{off, class, st.depth, nameAMD64(insn, &in) + at + ", " + class.String()}, nil
			}
			if ok && !found {
				fallback, found = entrySite{off: off, class: SingleStepped, sp: st.depth}, true
			}
		}
		if off >= start || start == 0 {
			if stop := b.passAMD64(&in, &st, opt, fn.Lang); stop != "" {
				why = stop + at
				break
			}
		}
		st.step(&in, &ignored)
		off += int32(in.length)
	}
	if !found {
		return fallback, errors.New("no instruction that the kernel can probe: " + why)
	}
	fallback.reason = "+" + strconv.Itoa(int(fallback.off)) + ", single-stepped: " + why
	return fallback, nil
}

// passAMD64 says what forbids an entry site behind the instruction; empty if
// nothing does.
func (b *body) passAMD64(in *insnAMD64, st *stackAMD64, opt *Options, lang symbolizer.Lang) string {
	switch in.flow {
	case flowNext:
	case flowCall, flowCallInd:
		return "call"
	default:
		return "branch"
	}
	e := effectAMD64(in)
	if e.opaque {
		return "instruction with wide effects"
	}
	if b.problem != "" && (e.regs|e.vector != 0 || e.store) {
		return "code and data mixed after instruction"
	}
	if e.store {
		base, index := in.mem()
		if index != baseNone || base != regRSP || st.depth == depthUnknown || in.disp >= st.depth {
			if base == regRSP || opt.NeedArgs {
				return "memory written"
			}
		}
	}
	if opt.NeedArgs {
		args, vectors := uint32(argRegsSysV), uint32(argVectorsSysV)
		if lang == symbolizer.LangGo {
			args, vectors = argRegsGo, argVectorsGo
		}
		if e.regs&args != 0 || e.vector&vectors != 0 {
			return "argument register changed"
		}
	}
	return ""
}

// onlyNops reports whether code, a part of a function's beginning, does
// nothing: endbr64 and nops.
func onlyNops(code []byte) bool {
	var in insnAMD64
	for len(code) > 0 {
		if !decodeAMD64(code, &in) || !(in.opMap == mapOne && in.op == 0x90 || in.opMap == map0F && (in.op == 0x1e || in.op == 0x1f)) {
			return false
		}
		code = code[in.length:]
	}
	return true
}

// goStackCheckAMD64 returns the offset of the first instruction after the
// check for stack space that begins most Go functions, 0 if there is none:
//
//	cmp 16(r14), rsp; jbe grow                                     small frames
//	lea -n(rsp), r12; cmp 16(r14), r12; jbe grow                   larger frames
//	mov rsp, r12; sub n, r12; jb grow; cmp 16(r14), r12; jbe grow  huge frames
//
// Assembly functions load g from thread-local storage to rcx first and compare
// with 16(rcx). Functions that run on the system stack use offset 24.
func goStackCheckAMD64(code []byte) int32 {
	const maxCheck = 8 // instructions
	var in insnAMD64
	compared := false
	for off, i := int32(0), 0; i < maxCheck && int(off) < len(code) && decodeAMD64(code[off:], &in); i++ {
		off += int32(in.length)
		if in.enc != encLegacy {
			return 0
		}
		switch {
		case in.opMap == mapOne && in.op == 0x3b && in.isMem() && (in.regNum() == regRSP || in.regNum() == regR12):
			base, _ := in.mem()
			compared = (base == regR14 || base == regRCX || base == regR12) && (in.disp == 16 || in.disp == 24)
		case in.opMap == mapOne && in.op == 0x76, in.opMap == map0F && in.op == 0x86: // jbe
			if compared && in.imm > 0 {
				return off
			}
			return 0
		case in.opMap == mapOne && in.op == 0x72, in.opMap == map0F && in.op == 0x82: // jb, huge frames
			if in.imm <= 0 {
				return 0
			}
		case in.flow != flowNext:
			return 0
		default:
			e := effectAMD64(&in)
			if e.opaque || e.store || e.vector != 0 || e.regs&^(1<<regR12|1<<regRCX) != 0 {
				return 0
			}
		}
	}
	return 0
}
