package uprobes

import (
	"debug/elf"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ArgKind says how an argument is fetched. The values are part of the layout
// of ArgSpec: append only.
type ArgKind uint8

// Kinds of arguments. reg is the 8 bytes at ArgSpec.RegOff of struct pt_regs,
// or 0 with ArgNoBase.
const (
	ArgUnreadable ArgKind = iota // no value: show it as unread, never as 0
	ArgConst                     // ValOff
	ArgReg                       // reg + ValOff
	ArgMem                       // Size bytes of user memory at reg + ValOff
	ArgMemIndex                  // Size bytes of user memory at reg + (index << Shift) + ValOff
	ArgMemField                  // a field of what a field points to, see ArgSpec
)

// ArgFlags qualify an ArgSpec. The values are part of its layout: append only.
type ArgFlags uint8

// Argument flags.
const (
	ArgSigned    ArgFlags = 1 << iota // sign-extend the value from Size bytes, else zero-extend
	ArgFloat                          // the bytes are an IEEE 754 number
	ArgNoBase                         // there is no base register
	ArgIndexSxtw                      // index is the sign-extended low half of its register
	ArgIndexUxtw                      // index is the zero-extended low half of its register
)

// ArgSpecSize is the size of an ArgSpec in bytes.
const ArgSpecSize = 16

// ArgSpec is the recipe by which a BPF program fetches one argument. Its
// layout is fixed and without padding:
//
//	struct usdt_arg_spec {
//		__s64 val_off;     // 0
//		__u16 reg_off;     // 8
//		__u16 idx_reg_off; // 10
//		__u8  kind;        // 12
//		__u8  size;        // 13
//		__u8  flags;       // 14
//		__u8  shift;       // 15
//	};
//
// All arithmetic is modulo 2^64. Whatever the kind, the value is cut to Size
// bytes and then extended to 64 bits according to ArgSigned; a failed read
// makes the argument unread.
//
// ArgMemField follows one pointer more. ValOff then holds three unsigned
// 16-bit numbers, a in its lowest bits, b and c above: the value is Size bytes
// of user memory at p + b, plus c, where p is the 8 bytes at reg + a.
//
// Registers are byte offsets into struct pt_regs of x86-64 (r15 0 … rax 80,
// rdi 112, rip 128, rsp 152) or struct user_pt_regs of arm64 (x0 0 … x30 240,
// sp 248, pc 256). The offset of a legacy high byte (ah) is one more than that
// of its register, so a program reads 8 bytes at any offset up to 152, or 256
// on arm64, and must not assume alignment. At a uprobe hit rip and pc hold the
// address of the probe itself, which is how position-independent data is
// reached: ValOff is then the distance from the probe to the data.
type ArgSpec struct {
	ValOff    int64
	RegOff    uint16
	IdxRegOff uint16 // ArgMemIndex only
	Kind      ArgKind
	Size      uint8 // 1, 2, 4 or 8; 0 for ArgUnreadable
	Flags     ArgFlags
	Shift     uint8 // left shift of the index, 0 to 4
}

// USDTArg is one argument of a static probe.
type USDTArg struct {
	Size   uint8  // bytes of the value; 0 when not understood
	Signed bool   // two's complement
	Float  bool   // IEEE 754
	Raw    string // as in the note: "-4@60(%rax)"
	Spec   ArgSpec
	Err    error // why the argument cannot be read (Spec.Kind is ArgUnreadable); else nil
}

// errNotInRegs explains the commonest unreadable argument.
var errNotInRegs = errors.New("the kernel hands floating-point and vector registers to no probe")

// argContext is what the meaning of an argument string depends on.
type argContext struct {
	machine elf.Machine
	class   elf.Class
	fixed   bool   // ET_EXEC: symbols are absolute at run time
	addr    uint64 // of the probe
	lookup  SymbolLookup
}

// parseUSDTArgs parses a note's argument string. It never fails as a whole:
// the number of arguments is right even if some cannot be read.
func parseUSDTArgs(raw string, ctx argContext) []USDTArg {
	var args []USDTArg
	for _, field := range splitUSDTArgs(raw) {
		if len(args) == maxStapArgs {
			break
		}
		args = append(args, parseUSDTArg(field, ctx))
	}
	return args
}

// splitUSDTArgs splits at spaces outside of brackets: arm64 writes "[sp, 16]".
func splitUSDTArgs(raw string) []string {
	var fields []string
	depth, start := 0, 0
	for i := 0; i <= len(raw); i++ {
		if i < len(raw) {
			switch raw[i] {
			case '[', '(':
				depth++
			case ']', ')':
				depth = max(depth-1, 0)
			}
			if raw[i] != ' ' && raw[i] != '\t' || depth > 0 {
				continue
			}
		}
		if i > start {
			fields = append(fields, raw[start:i])
		}
		start = i + 1
	}
	return fields
}

// parseUSDTArg parses "[-]SIZE[f]@OPERAND". A missing size means a word of the
// machine, as gdb takes it for notes of the format's first version.
func parseUSDTArg(raw string, ctx argContext) USDTArg {
	arg := USDTArg{Raw: raw, Size: 8}
	if ctx.class == elf.ELFCLASS32 {
		arg.Size = 4
	}
	operand := raw
	if size, rest, ok := strings.Cut(raw, "@"); ok && isArgSize(size) {
		operand = rest
		size, arg.Signed = strings.CutPrefix(size, "-")
		size, arg.Float = strings.CutSuffix(size, "f")
		n, err := strconv.ParseUint(size, 10, 8)
		if err != nil || n != 1 && n != 2 && n != 4 && n != 8 {
			arg.Size = 0
			arg.Err = fmt.Errorf("argument %q: a value of %s bytes does not fit a register", raw, size)
			return arg
		}
		arg.Size = uint8(n)
	}
	var spec ArgSpec
	var err error
	switch ctx.machine {
	case elf.EM_X86_64:
		spec, err = parseX86Operand(operand, ctx)
	case elf.EM_AARCH64:
		spec, err = parseAarch64Operand(operand)
	default:
		err = fmt.Errorf("arguments of %s are not supported", ctx.machine)
	}
	if err != nil {
		arg.Err = fmt.Errorf("argument %q: %w", raw, err)
		return arg
	}
	spec.Size = arg.Size
	if arg.Signed {
		spec.Flags |= ArgSigned
	}
	if arg.Float {
		spec.Flags |= ArgFloat
	}
	arg.Spec = spec
	return arg
}

// isArgSize reports whether s is what stands before an argument's first '@'.
// Operands may hold an '@' of their own (%fs:x@tpoff).
func isArgSize(s string) bool {
	s = strings.TrimPrefix(s, "-")
	s = strings.TrimSuffix(s, "f")
	if s == "" {
		return false
	}
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// parseInt parses an optionally signed decimal or 0x-hexadecimal number of 64
// bits, signed or not.
func parseInt(s string) (int64, bool) {
	digits, negative := strings.CutPrefix(s, "-")
	if !negative {
		digits = strings.TrimPrefix(s, "+")
	}
	base := 10
	if hex, ok := strings.CutPrefix(digits, "0x"); ok {
		digits, base = hex, 16
	}
	if digits == "" || digits[0] == '+' || digits[0] == '-' {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, base, 64)
	if err != nil {
		return 0, false
	}
	if negative {
		return -int64(n), true
	}
	return int64(n), true
}

// parseExpr evaluates a sum of numbers and at most one symbol, as assemblers
// print displacements: "-8", "NBuffers", "40+CheckpointStats", "table-8+4".
func parseExpr(s string) (sum int64, symbol string, err error) {
	if s == "" {
		return 0, "", nil
	}
	for rest := s; rest != ""; {
		sign := ""
		if rest[0] == '+' || rest[0] == '-' {
			sign, rest = rest[:1], rest[1:]
		}
		end := 0
		for end < len(rest) && rest[end] != '+' && rest[end] != '-' {
			end++
		}
		term := rest[:end]
		rest = rest[end:]
		if n, ok := parseInt(sign + term); ok {
			sum += n
			continue
		}
		if !isSymbolName(term) || sign == "-" || symbol != "" {
			return 0, "", fmt.Errorf("%q is not a displacement", s)
		}
		symbol = term
	}
	return sum, symbol, nil
}

// isSymbolName reports whether s can be a symbol of an assembler.
func isSymbolName(s string) bool {
	if s == "" || s[0] >= '0' && s[0] <= '9' {
		return false
	}
	for i := 0; i < len(s); i++ {
		if !isIdentByte(s[i]) && s[i] != '.' {
			return false
		}
	}
	return true
}
