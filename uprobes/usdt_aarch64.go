package uprobes

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// aarch64Reg returns the byte offset of a general register in struct
// user_pt_regs (arch/arm64/include/uapi/asm/ptrace.h) and whether the name is
// that of the lower half.
func aarch64Reg(name string) (off uint16, half, ok bool) {
	switch name {
	case "sp", "wsp":
		return 248, name == "wsp", true
	case "fp":
		return 29 * 8, false, true
	case "lr":
		return 30 * 8, false, true
	case "pc":
		return 256, false, true
	}
	if len(name) < 2 || name[0] != 'x' && name[0] != 'w' || name[1] == '0' && len(name) > 2 {
		return 0, false, false
	}
	n, err := strconv.ParseUint(name[1:], 10, 8)
	if err != nil || n > 30 {
		return 0, false, false
	}
	return uint16(n) * 8, name[0] == 'w', true
}

// parseAarch64Operand parses an operand as gcc and clang print it: x0, 5,
// [sp], [sp, 16], [x0, x1], [x0, x1, lsl 3], [x0, w1, sxtw 2].
func parseAarch64Operand(s string) (ArgSpec, error) {
	if s == "" {
		return ArgSpec{}, errors.New("the operand is missing")
	}
	if s[0] == '[' {
		return parseAarch64Memory(s)
	}
	if s == "xzr" || s == "wzr" {
		return ArgSpec{Kind: ArgConst}, nil
	}
	if off, _, ok := aarch64Reg(s); ok {
		return ArgSpec{Kind: ArgReg, RegOff: off}, nil
	}
	if n, ok := aarch64Int(s); ok {
		return ArgSpec{Kind: ArgConst, ValOff: n}, nil
	}
	if len(s) > 1 && strings.IndexByte("vqdshbz", s[0]) >= 0 && s[1] >= '0' && s[1] <= '9' {
		return ArgSpec{}, errNotInRegs
	}
	return ArgSpec{}, fmt.Errorf("%q is neither a register nor a constant", s)
}

func aarch64Int(s string) (int64, bool) { return parseInt(strings.TrimPrefix(s, "#")) }

func parseAarch64Memory(s string) (ArgSpec, error) {
	if !strings.HasSuffix(s, "]") {
		// Write-back and post-index forms change a register; no operand of a
		// probe does.
		return ArgSpec{}, fmt.Errorf("%q does not end with its ']'", s)
	}
	parts := strings.Split(s[1:len(s)-1], ",")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	base, half, ok := aarch64Reg(parts[0])
	if !ok || half {
		return ArgSpec{}, fmt.Errorf("%q is not a 64-bit register", parts[0])
	}
	spec := ArgSpec{Kind: ArgMem, RegOff: base}
	if len(parts) == 1 {
		return spec, nil
	}
	if n, ok := aarch64Int(parts[1]); ok && len(parts) == 2 {
		spec.ValOff = n
		return spec, nil
	}
	if spec.IdxRegOff, half, ok = aarch64Reg(parts[1]); !ok || len(parts) > 3 {
		return ArgSpec{}, fmt.Errorf("%q is not an address", s)
	}
	spec.Kind = ArgMemIndex
	extend := "lsl"
	if len(parts) == 3 {
		var amount string
		var shifted bool
		extend, amount, shifted = strings.Cut(parts[2], " ")
		if shifted || extend == "lsl" {
			n, ok := aarch64Int(strings.TrimSpace(amount))
			if !ok || n < 0 || n > 4 {
				return ArgSpec{}, fmt.Errorf("shift of %q is not 0 to 4", s)
			}
			spec.Shift = uint8(n)
		}
	}
	switch {
	case extend == "sxtw" && half:
		spec.Flags |= ArgIndexSxtw
	case extend == "uxtw" && half:
		spec.Flags |= ArgIndexUxtw
	case (extend == "lsl" || extend == "sxtx") && !half:
	default:
		return ArgSpec{}, fmt.Errorf("%q does not fit index %s", extend, parts[1])
	}
	return spec, nil
}
