package uprobes

import (
	"bytes"
	"errors"
	"strconv"

	"github.com/sbxtrace/sbxtrace/symbolizer"
)

// maxPrologue is how far from the first byte an entry site may lie, in
// instructions. Prologues of C and Go have their first push well before.
const maxPrologue = 24

const pageSize = 4096

// placeAMD64 chooses the entry site: see walkAMD64 for the rules.
func placeAMD64(code []byte, fn *symbolizer.Function, opt *Options, b *body, atEntrySP bool) (entrySite, error) {
	if isSigreturnAMD64(code) {
		return entrySite{}, errors.New("signal trampoline: unwinders recognise it by its bytes")
	}
	return placeWith(walkAMD64, goStackCheckAMD64, code, fn, opt, b, atEntrySP)
}

// isSigreturnAMD64 recognises the code that the kernel makes signal handlers
// return to: mov $15, %rax; syscall. Its unwind information begins a byte early,
// on a nop, so it may be one byte off.
func isSigreturnAMD64(code []byte) bool {
	const sigreturn = "\x48\xc7\xc0\x0f\x00\x00\x00\x0f\x05"
	return bytes.HasPrefix(code, []byte(sigreturn)) || len(code) > 0 && bytes.HasPrefix(code[1:], []byte(sigreturn))
}

// walkAMD64 walks the straight line from offset start on to the first
// instruction that the kernel emulates and that every call executes exactly
// once with the arguments still in place. It falls back to the first
// instruction there that can be probed at all. atEntrySP requires that the
// stack pointer still points to the return address, as return probes do.
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
		if !decodeAMD64(code[off:], &in) {
			why = "undecodable bytes" + atOffset(off)
			break
		}
		if off > 0 && (off >= b.minTarget || opt.OtherEntry != nil && opt.OtherEntry(fn.Addr+uint64(off))) {
			why = "jump target" + atOffset(off)
			break
		}
		insn := code[off : off+int32(in.length)]
		if off >= start {
			class, ok := classAMD64(insn, &in, opt)
			if class == Nop5Optimized && (fn.Offset+uint64(off))%pageSize > pageSize-5 {
				class = Emulated // the kernel does not patch across pages
			}
			ok = ok && st.depth >= 0 && st.depth <= MaxSPAdjust && st.depth%8 == 0
			if atEntrySP && st.depth != 0 {
				why = "stack pointer moved before +" + strconv.Itoa(int(off))
				break
			}
			if ok && class == Nop5Optimized && st.depth == 0 && !onlyNops(code[:off]) {
				ok = false // the trampoline's call would write where a leaf keeps its variables
			}
			if ok && class != SingleStepped {
				return entrySite{off: off, class: class, sp: st.depth, reason: nameAMD64(insn, &in) + atOffset(off) + ", " + class.String()}, nil
			}
			if ok && !found {
				fallback, found = entrySite{off: off, class: SingleStepped, sp: st.depth}, true
			}
		}
		if off >= start || start == 0 {
			if stop := b.passAMD64(&in, &st, opt, fn.Lang); stop != "" {
				why = stop + atOffset(off)
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
	if e.store && b.storeMatters(in, st, opt, lang) {
		return "memory written"
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

// storeMatters reports whether a store may change what an entry probe behind it
// reads: the return address, arguments on the stack, or, where arguments are
// recorded, memory that they point to. The function's own frame does not matter,
// nor do the slots above it in which Go functions save argument registers.
func (b *body) storeMatters(in *insnAMD64, st *stackAMD64, opt *Options, lang symbolizer.Lang) bool {
	const word = 8
	base, index := in.mem()
	if base != regRSP || index != baseNone || st.depth == depthUnknown {
		return base == regRSP || opt.NeedArgs
	}
	if lang == symbolizer.LangGo {
		return in.disp > st.depth-word && in.disp < st.depth+word
	}
	return in.disp > st.depth-word
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
