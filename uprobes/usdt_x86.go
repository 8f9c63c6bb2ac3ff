package uprobes

import (
	"errors"
	"fmt"
	"strings"
)

// x86Regs maps the names of x86-64 registers to byte offsets into struct
// pt_regs (arch/x86/include/asm/ptrace.h; struct user_regs_struct begins the
// same way). Names of parts of a register have its offset, those of the legacy
// high bytes one more.
var x86Regs = func() map[string]uint16 {
	regs := map[string]uint16{"rip": 128, "eflags": 144, "rflags": 144}
	order := []string{"r15", "r14", "r13", "r12", "bp", "bx", "r11", "r10", "r9", "r8", "ax", "cx", "dx", "si", "di"}
	for i, name := range order {
		off := uint16(8 * i)
		switch {
		case name[0] == 'r':
			for _, suffix := range []string{"", "d", "w", "b"} {
				regs[name+suffix] = off
			}
		case strings.HasSuffix(name, "x"):
			regs[name[:1]+"h"] = off + 1
			addLegacyNames(regs, name, name[:1]+"l", off)
		default:
			addLegacyNames(regs, name, name+"l", off)
		}
	}
	addLegacyNames(regs, "sp", "spl", 152)
	return regs
}()

func addLegacyNames(regs map[string]uint16, word, low string, off uint16) {
	regs["r"+word], regs["e"+word], regs[word], regs[low] = off, off, off, off
}

const x86RIP = 128

// x86AddressReg returns the offset of a 64-bit register that may address
// memory. A 32-bit one would cut the address, which no 64-bit compiler does.
func x86AddressReg(name string) (uint16, bool) {
	off, ok := x86Regs[name]
	if !ok || len(name) < 2 || name[0] != 'r' || strings.TrimRight(name, "dwb") != name && name[1] >= '0' && name[1] <= '9' || name == "rflags" {
		return 0, false
	}
	return off, true
}

// parseX86Operand parses an operand in AT&T syntax: $-5, %rdi, 8(%rax,%rbx,4),
// foo+8(%rip), foo.
func parseX86Operand(s string, ctx argContext) (ArgSpec, error) {
	switch {
	case strings.HasPrefix(s, "$"):
		return parseX86Immediate(s[1:], ctx)
	case strings.HasPrefix(s, "%"):
		name := s[1:]
		if strings.Contains(name, ":") {
			return ArgSpec{}, fmt.Errorf("memory of a segment (%s) is not supported", name)
		}
		off, ok := x86Regs[name]
		if !ok {
			if isX86VectorReg(name) {
				return ArgSpec{}, errNotInRegs
			}
			return ArgSpec{}, fmt.Errorf("unknown register %q", name)
		}
		return ArgSpec{Kind: ArgReg, RegOff: off}, nil
	case s == "":
		return ArgSpec{}, errors.New("the operand is missing")
	}
	return parseX86Memory(s, ctx)
}

func isX86VectorReg(name string) bool {
	for _, prefix := range []string{"xmm", "ymm", "zmm", "mm", "st", "k"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// parseX86Immediate parses what follows the '$': a number or an address.
func parseX86Immediate(s string, ctx argContext) (ArgSpec, error) {
	off, symbol, err := parseExpr(s)
	switch {
	case err != nil || s == "":
		return ArgSpec{}, fmt.Errorf("%q is not a constant", s)
	case symbol == "":
		return ArgSpec{Kind: ArgConst, ValOff: off}, nil
	}
	addr, err := ctx.symbol(symbol)
	if err != nil {
		return ArgSpec{}, err
	}
	if ctx.fixed {
		return ArgSpec{Kind: ArgConst, ValOff: addr + off}, nil
	}
	return ArgSpec{Kind: ArgReg, RegOff: x86RIP, ValOff: addr + off - int64(ctx.addr)}, nil
}

func parseX86Memory(s string, ctx argContext) (ArgSpec, error) {
	displacement, inside := s, ""
	if open := strings.IndexByte(s, '('); open >= 0 {
		if !strings.HasSuffix(s, ")") {
			return ArgSpec{}, fmt.Errorf("%q lacks its ')'", s)
		}
		displacement, inside = s[:open], s[open+1:len(s)-1]
		if inside == "" {
			return ArgSpec{}, fmt.Errorf("%q names no register", s)
		}
	}
	off, symbol, err := parseExpr(displacement)
	if err != nil {
		return ArgSpec{}, err
	}
	spec := ArgSpec{Kind: ArgMem, ValOff: off}
	regs := strings.Split(inside, ",")
	for i := range regs {
		regs[i] = strings.TrimSpace(regs[i])
	}
	relative := regs[0] == "%rip"
	switch {
	case len(regs) > 3 || relative && len(regs) > 1:
		return ArgSpec{}, fmt.Errorf("%q is not an address", s)
	case relative:
		spec.RegOff = x86RIP
		if symbol == "" {
			// A number before (%rip) counts from the following instruction,
			// and which that was is not known.
			return ArgSpec{}, fmt.Errorf("%q lacks a symbol", s)
		}
	case regs[0] == "":
		spec.Flags |= ArgNoBase
	default:
		if spec.RegOff, err = x86MemoryReg(regs[0]); err != nil {
			return ArgSpec{}, err
		}
	}
	if len(regs) > 1 {
		spec.Kind = ArgMemIndex
		if spec.IdxRegOff, err = x86MemoryReg(regs[1]); err != nil {
			return ArgSpec{}, err
		}
		if regs[1] == "%rsp" || regs[1] == "%rip" {
			return ArgSpec{}, fmt.Errorf("%s cannot be an index", regs[1])
		}
	}
	if len(regs) > 2 {
		shift, ok := map[string]uint8{"1": 0, "2": 1, "4": 2, "8": 3}[regs[2]]
		if !ok {
			return ArgSpec{}, fmt.Errorf("scale %q is not 1, 2, 4 or 8", regs[2])
		}
		spec.Shift = shift
	}
	if symbol == "" {
		return spec, nil
	}
	addr, err := ctx.symbol(symbol)
	if err != nil {
		return ArgSpec{}, err
	}
	spec.ValOff += addr
	switch {
	case relative:
		spec.ValOff -= int64(ctx.addr)
	case !ctx.fixed && spec.Flags&ArgNoBase != 0:
		// The symbol moves with the code, and the probe is part of that.
		spec.Flags &^= ArgNoBase
		spec.RegOff = x86RIP
		spec.ValOff -= int64(ctx.addr)
	case !ctx.fixed:
		return ArgSpec{}, fmt.Errorf("%q is an absolute address in position-independent code", s)
	}
	return spec, nil
}

func x86MemoryReg(s string) (uint16, error) {
	name, ok := strings.CutPrefix(s, "%")
	off, known := x86AddressReg(name)
	if !ok || !known {
		return 0, fmt.Errorf("%q is not a 64-bit register", s)
	}
	return off, nil
}

// symbol returns the address of a symbol as a displacement.
func (ctx argContext) symbol(name string) (int64, error) {
	if ctx.lookup != nil {
		if addr, ok := ctx.lookup(name); ok {
			return int64(addr), nil
		}
	}
	return 0, fmt.Errorf("symbol %s is not in the file's symbol tables", name)
}
