package uprobes

import (
	"debug/elf"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"unsafe"
)

func TestArgSpecLayout(t *testing.T) {
	var s ArgSpec
	if unsafe.Sizeof(s) != ArgSpecSize || binary.Size(s) != ArgSpecSize {
		t.Errorf("size is %d, without padding %d, want %d", unsafe.Sizeof(s), binary.Size(s), ArgSpecSize)
	}
	for name, got := range map[string][2]uintptr{
		"val_off":     {unsafe.Offsetof(s.ValOff), 0},
		"reg_off":     {unsafe.Offsetof(s.RegOff), 8},
		"idx_reg_off": {unsafe.Offsetof(s.IdxRegOff), 10},
		"kind":        {unsafe.Offsetof(s.Kind), 12},
		"size":        {unsafe.Offsetof(s.Size), 13},
		"flags":       {unsafe.Offsetof(s.Flags), 14},
		"shift":       {unsafe.Offsetof(s.Shift), 15},
	} {
		if got[0] != got[1] {
			t.Errorf("%s is at %d, documented at %d", name, got[0], got[1])
		}
	}
	if ArgUnreadable != 0 || ArgConst != 1 || ArgReg != 2 || ArgMem != 3 || ArgMemIndex != 4 || ArgMemField != 5 {
		t.Error("a kind changed its value")
	}
	if ArgSigned != 1 || ArgFloat != 2 || ArgNoBase != 4 || ArgIndexSxtw != 8 || ArgIndexUxtw != 16 {
		t.Error("a flag changed its value")
	}
}

// testSymbols knows two symbols.
func testSymbols(name string) (uint64, bool) {
	addr, ok := map[string]uint64{"table": 0x4000, "buf.0": 0x5000}[name]
	return addr, ok
}

type argTest struct {
	raw  string
	want ArgSpec
	err  string
}

func checkArgs(t *testing.T, ctx argContext, tests []argTest) {
	t.Helper()
	for _, test := range tests {
		args := parseUSDTArgs(test.raw, ctx)
		if len(args) != 1 {
			t.Errorf("%q: %d arguments: %+v", test.raw, len(args), args)
			continue
		}
		a := args[0]
		if a.Raw != test.raw || a.Spec != test.want {
			t.Errorf("%q:\n got %+v\nwant %+v", test.raw, a, test.want)
		}
		if test.err == "" && a.Err != nil || test.err != "" && (a.Err == nil || !strings.Contains(a.Err.Error(), test.err)) {
			t.Errorf("%q: error %v, want %q", test.raw, a.Err, test.err)
		}
	}
}

func TestX86Args(t *testing.T) {
	ctx := argContext{machine: elf.EM_X86_64, class: elf.ELFCLASS64, addr: 0x1000, lookup: testSymbols}
	checkArgs(t, ctx, []argTest{
		// Constants
		{raw: "-4@$-5", want: ArgSpec{Kind: ArgConst, Size: 4, ValOff: -5, Flags: ArgSigned}},
		{raw: "8@$18446744073709551615", want: ArgSpec{Kind: ArgConst, Size: 8, ValOff: -1}},
		{raw: "4@$0x7f", want: ArgSpec{Kind: ArgConst, Size: 4, ValOff: 0x7f}},
		{raw: "8@$table+8", want: ArgSpec{Kind: ArgReg, Size: 8, RegOff: 128, ValOff: 0x3008}},
		{raw: "8@$", err: `"" is not a constant`},
		{raw: "8@$x", err: "symbol x is not in the file's symbol tables"},
		{raw: "8@$1x", err: `"1x" is not`},

		// Registers: the size counts, not the name.
		{raw: "8@%rdi", want: ArgSpec{Kind: ArgReg, Size: 8, RegOff: 112}},
		{raw: "4@%eax", want: ArgSpec{Kind: ArgReg, Size: 4, RegOff: 80}},
		{raw: "-8@%ax", want: ArgSpec{Kind: ArgReg, Size: 8, RegOff: 80, Flags: ArgSigned}},
		{raw: "1@%al", want: ArgSpec{Kind: ArgReg, Size: 1, RegOff: 80}},
		{raw: "1@%ah", want: ArgSpec{Kind: ArgReg, Size: 1, RegOff: 81}},
		{raw: "1@%bh", want: ArgSpec{Kind: ArgReg, Size: 1, RegOff: 41}},
		{raw: "1@%dil", want: ArgSpec{Kind: ArgReg, Size: 1, RegOff: 112}},
		{raw: "1@%bpl", want: ArgSpec{Kind: ArgReg, Size: 1, RegOff: 32}},
		{raw: "-2@%r15w", want: ArgSpec{Kind: ArgReg, Size: 2, RegOff: 0, Flags: ArgSigned}},
		{raw: "4@%r8d", want: ArgSpec{Kind: ArgReg, Size: 4, RegOff: 72}},
		{raw: "1@%r10b", want: ArgSpec{Kind: ArgReg, Size: 1, RegOff: 56}},
		{raw: "8@%rsp", want: ArgSpec{Kind: ArgReg, Size: 8, RegOff: 152}},
		{raw: "%rsi", want: ArgSpec{Kind: ArgReg, Size: 8, RegOff: 104}}, // first version of the format
		{raw: "8f@%xmm0", err: "floating-point"},
		{raw: "8f@%st(0)", err: "floating-point"},
		{raw: "8@%foo", err: `unknown register "foo"`},
		{raw: "8@%", err: `unknown register ""`},
		{raw: "8@%fs:x@tpoff", err: "memory of a segment"},

		// Memory
		{raw: "-4@60(%rax)", want: ArgSpec{Kind: ArgMem, Size: 4, RegOff: 80, ValOff: 60, Flags: ArgSigned}},
		{raw: "8@-0x10(%rbp)", want: ArgSpec{Kind: ArgMem, Size: 8, RegOff: 32, ValOff: -16}},
		{raw: "2@(%r12)", want: ArgSpec{Kind: ArgMem, Size: 2, RegOff: 24}},
		{raw: "8f@8(%rsp)", want: ArgSpec{Kind: ArgMem, Size: 8, RegOff: 152, ValOff: 8, Flags: ArgFloat}},
		{raw: "-4f@8(%rsp)", want: ArgSpec{Kind: ArgMem, Size: 4, RegOff: 152, ValOff: 8, Flags: ArgFloat | ArgSigned}},
		{raw: "8@-4+8-20(%rbp)", want: ArgSpec{Kind: ArgMem, Size: 8, RegOff: 32, ValOff: -16}},
		{raw: "8@8(%rax,%rbx,8)", want: ArgSpec{Kind: ArgMemIndex, Size: 8, RegOff: 80, IdxRegOff: 40, Shift: 3, ValOff: 8}},
		{raw: "1@(%rax,%r9)", want: ArgSpec{Kind: ArgMemIndex, Size: 1, RegOff: 80, IdxRegOff: 64}},
		{raw: "1@(%rax, %r9, 2)", want: ArgSpec{Kind: ArgMemIndex, Size: 1, RegOff: 80, IdxRegOff: 64, Shift: 1}},
		{raw: "4@-8(,%rcx,4)", want: ArgSpec{Kind: ArgMemIndex, Size: 4, IdxRegOff: 88, Shift: 2, ValOff: -8, Flags: ArgNoBase}},
		{raw: "4@4096", want: ArgSpec{Kind: ArgMem, Size: 4, ValOff: 4096, Flags: ArgNoBase}},
		{raw: "8@8(%eax)", err: `"%eax" is not a 64-bit register`},
		{raw: "8@8(%r8d)", err: `"%r8d" is not a 64-bit register`},
		{raw: "8@8(rax)", err: `"rax" is not a 64-bit register`},
		{raw: "8@8(%rax,%rsp)", err: "%rsp cannot be an index"},
		{raw: "8@8(%rax,%rbx,3)", err: `scale "3" is not`},
		{raw: "8@8(%rax,%rbx,8,9)", err: "is not an address"},
		{raw: "8@8(%rip,%rbx)", err: "is not an address"},
		{raw: "8@8(%rax", err: "lacks its ')'"},
		{raw: "8@8()", err: "names no register"},
		{raw: "8@", err: "the operand is missing"},
		{raw: "8@8-(%rax)", err: "is not a displacement"},

		// Symbols
		{raw: "-4@table(%rip)", want: ArgSpec{Kind: ArgMem, Size: 4, RegOff: 128, ValOff: 0x3000, Flags: ArgSigned}},
		{raw: "4@40+table(%rip)", want: ArgSpec{Kind: ArgMem, Size: 4, RegOff: 128, ValOff: 0x3028}},
		{raw: "4@buf.0+8-4(%rip)", want: ArgSpec{Kind: ArgMem, Size: 4, RegOff: 128, ValOff: 0x4004}},
		{raw: "4@table", want: ArgSpec{Kind: ArgMem, Size: 4, RegOff: 128, ValOff: 0x3000}},
		{raw: "4@table(,%rax,4)", want: ArgSpec{Kind: ArgMemIndex, Size: 4, RegOff: 128, IdxRegOff: 80, Shift: 2, ValOff: 0x3000}},
		{raw: "4@table(%rax)", err: "absolute address in position-independent code"},
		{raw: "4@unknown(%rip)", err: "symbol unknown is not in the file's symbol tables"},
		{raw: "4@table+table(%rip)", err: "is not a displacement"},
		{raw: "4@-table(%rip)", err: "is not a displacement"},
		{raw: "4@table@GOTPCREL(%rip)", err: "is not a displacement"},
		{raw: "4@8(%rip)", err: "lacks a symbol"},

		// Sizes
		{raw: "16@%rax", err: "16 bytes does not fit"},
		{raw: "3@%rax", err: "3 bytes does not fit"},
		{raw: "999@%rax", err: "999 bytes does not fit"},
	})

	// At a fixed address symbols are absolute.
	ctx.fixed = true
	checkArgs(t, ctx, []argTest{
		{raw: "8@$table+8", want: ArgSpec{Kind: ArgConst, Size: 8, ValOff: 0x4008}},
		{raw: "4@table-4", want: ArgSpec{Kind: ArgMem, Size: 4, ValOff: 0x3ffc, Flags: ArgNoBase}},
		{raw: "4@table(%rax)", want: ArgSpec{Kind: ArgMem, Size: 4, RegOff: 80, ValOff: 0x4000}},
		{raw: "4@table(,%rax,4)", want: ArgSpec{Kind: ArgMemIndex, Size: 4, IdxRegOff: 80, Shift: 2, ValOff: 0x4000, Flags: ArgNoBase}},
		{raw: "4@table(%rip)", want: ArgSpec{Kind: ArgMem, Size: 4, RegOff: 128, ValOff: 0x3000}},
	})
}

func TestAarch64Args(t *testing.T) {
	ctx := argContext{machine: elf.EM_AARCH64, class: elf.ELFCLASS64, addr: 0x1000, lookup: testSymbols}
	checkArgs(t, ctx, []argTest{
		{raw: "-4@5", want: ArgSpec{Kind: ArgConst, Size: 4, ValOff: 5, Flags: ArgSigned}},
		{raw: "-4@-5", want: ArgSpec{Kind: ArgConst, Size: 4, ValOff: -5, Flags: ArgSigned}},
		{raw: "8@#16", want: ArgSpec{Kind: ArgConst, Size: 8, ValOff: 16}},
		{raw: "4@wzr", want: ArgSpec{Kind: ArgConst, Size: 4}},
		{raw: "8@xzr", want: ArgSpec{Kind: ArgConst, Size: 8}},
		{raw: "8@x0", want: ArgSpec{Kind: ArgReg, Size: 8}},
		{raw: "-4@x0", want: ArgSpec{Kind: ArgReg, Size: 4, Flags: ArgSigned}},
		{raw: "-4@w19", want: ArgSpec{Kind: ArgReg, Size: 4, RegOff: 152, Flags: ArgSigned}},
		{raw: "8@x30", want: ArgSpec{Kind: ArgReg, Size: 8, RegOff: 240}},
		{raw: "8@lr", want: ArgSpec{Kind: ArgReg, Size: 8, RegOff: 240}},
		{raw: "8@fp", want: ArgSpec{Kind: ArgReg, Size: 8, RegOff: 232}},
		{raw: "8@sp", want: ArgSpec{Kind: ArgReg, Size: 8, RegOff: 248}},
		{raw: "8@[sp, 16]", want: ArgSpec{Kind: ArgMem, Size: 8, RegOff: 248, ValOff: 16}},
		{raw: "8@[sp,#-16]", want: ArgSpec{Kind: ArgMem, Size: 8, RegOff: 248, ValOff: -16}},
		{raw: "4@[x19]", want: ArgSpec{Kind: ArgMem, Size: 4, RegOff: 152}},
		{raw: "8@[x0, x1]", want: ArgSpec{Kind: ArgMemIndex, Size: 8, IdxRegOff: 8}},
		{raw: "8@[x0, x1, lsl 3]", want: ArgSpec{Kind: ArgMemIndex, Size: 8, IdxRegOff: 8, Shift: 3}},
		{raw: "8@[x0, x1, lsl #3]", want: ArgSpec{Kind: ArgMemIndex, Size: 8, IdxRegOff: 8, Shift: 3}},
		{raw: "8@[x0, w1, sxtw 3]", want: ArgSpec{Kind: ArgMemIndex, Size: 8, IdxRegOff: 8, Shift: 3, Flags: ArgIndexSxtw}},
		{raw: "1@[x2, w1, uxtw]", want: ArgSpec{Kind: ArgMemIndex, Size: 1, RegOff: 16, IdxRegOff: 8, Flags: ArgIndexUxtw}},
		{raw: "8f@d0", err: "floating-point"},
		{raw: "4f@s3", err: "floating-point"},
		{raw: "16@q0", err: "16 bytes does not fit"},
		{raw: "8@x31", err: "neither a register nor a constant"},
		{raw: "8@x01", err: "neither a register nor a constant"},
		{raw: "8@foo", err: "neither a register nor a constant"},
		{raw: "8@", err: "the operand is missing"},
		{raw: "8@[sp, 16]!", err: "does not end with its ']'"},
		{raw: "8@[w0, 16]", err: `"w0" is not a 64-bit register`},
		{raw: "8@[x0, 16, lsl 3]", err: "is not an address"},
		{raw: "8@[x0, :lo12:table]", err: "is not an address"},
		{raw: "8@[x0, w1, lsl 3]", err: `"lsl" does not fit index w1`},
		{raw: "8@[x0, x1, sxtw 3]", err: `"sxtw" does not fit index x1`},
		{raw: "8@[x0, w1]", err: `"lsl" does not fit index w1`},
		{raw: "8@[x0, x1, lsl 5]", err: "is not 0 to 4"},
		{raw: "8@[x0, x1, lsl]", err: "is not 0 to 4"},
		{raw: "8@[x0, x1, lsl 3, 4]", err: "is not an address"},
	})
}

func TestOtherMachineArgs(t *testing.T) {
	checkArgs(t, argContext{machine: elf.EM_PPC64, class: elf.ELFCLASS64}, []argTest{
		{raw: "8@3", err: "arguments of EM_PPC64 are not supported"},
	})
}

func TestSplitUSDTArgs(t *testing.T) {
	tests := []struct {
		raw  string
		want []string
	}{
		{"", nil},
		{"  ", nil},
		{"8@%rdi", []string{"8@%rdi"}},
		{"8@%rdi  -4@$5 ", []string{"8@%rdi", "-4@$5"}},
		{"8@[sp, 16] 4@[x0, w1, sxtw 2] 8@x0", []string{"8@[sp, 16]", "4@[x0, w1, sxtw 2]", "8@x0"}},
		{"8@(%rax, %rbx, 8) 4@%eax", []string{"8@(%rax, %rbx, 8)", "4@%eax"}},
		{"8@) 4@( x", []string{"8@)", "4@( x"}},
	}
	for _, test := range tests {
		if got := splitUSDTArgs(test.raw); !slices.Equal(got, test.want) {
			t.Errorf("%q: got %q, want %q", test.raw, got, test.want)
		}
	}
	if n := len(parseUSDTArgs(strings.Repeat("8@%rdi ", 1000), argContext{machine: elf.EM_X86_64})); n != maxStapArgs {
		t.Errorf("%d arguments of a hostile note, want %d", n, maxStapArgs)
	}
}

// evalArg is what a BPF program does with an ArgSpec: regs are the bytes of
// struct pt_regs, read reads user memory.
func evalArg(s ArgSpec, regs []byte, read func(addr uint64, to []byte) error) (uint64, bool) {
	reg := func(off uint16) uint64 { return binary.LittleEndian.Uint64(regs[off:]) }
	base := uint64(s.ValOff)
	if s.Kind != ArgConst && s.Flags&ArgNoBase == 0 {
		base += reg(s.RegOff)
	}
	var value uint64
	switch s.Kind {
	case ArgMemField:
		var buf, field [8]byte
		a, b, c := uint64(s.ValOff&0xffff), uint64(s.ValOff>>16&0xffff), uint64(s.ValOff>>32&0xffff)
		if read(reg(s.RegOff)+a, buf[:]) != nil || read(binary.LittleEndian.Uint64(buf[:])+b, field[:s.Size]) != nil {
			return 0, false
		}
		value = binary.LittleEndian.Uint64(field[:]) + c
	case ArgConst, ArgReg:
		value = base
	case ArgMemIndex:
		index := reg(s.IdxRegOff)
		switch {
		case s.Flags&ArgIndexSxtw != 0:
			index = uint64(int64(int32(index)))
		case s.Flags&ArgIndexUxtw != 0:
			index = uint64(uint32(index))
		}
		base += index << s.Shift
		fallthrough
	case ArgMem:
		var buf [8]byte
		if read(base, buf[:s.Size]) != nil {
			return 0, false
		}
		value = binary.LittleEndian.Uint64(buf[:])
	default:
		return 0, false
	}
	unused := 64 - 8*uint(s.Size)
	if s.Flags&ArgSigned != 0 {
		return uint64(int64(value<<unused) >> unused), true
	}
	return value << unused >> unused, true
}

func FuzzUSDTArg(f *testing.F) {
	for _, seed := range []string{
		"8@%rdi -4@$-5", "-4@60(%rax)", "8@8(%rax,%rbx,8)", "4@40+table(%rip)", "1@%ah 8f@%xmm0", "%rsi",
		"-4@[sp, 16] 8@[x0, w1, sxtw 3]", "8@x0 4@wzr -4@-5", "4@table(,%rcx,4)", "8@%fs:x@tpoff", "8@$0x",
	} {
		f.Add(seed, false, false)
		f.Add(seed, true, true)
	}
	regs := make([]byte, 34*8)
	f.Fuzz(func(t *testing.T, raw string, arm, fixed bool) {
		ctx := argContext{machine: elf.EM_X86_64, class: elf.ELFCLASS64, fixed: fixed, addr: 0x1000, lookup: testSymbols}
		last := uint16(152)
		if arm {
			ctx.machine, last = elf.EM_AARCH64, 256
		}
		args := parseUSDTArgs(raw, ctx)
		if len(args) > maxStapArgs || len(args) == 0 && strings.Trim(raw, " \t") != "" {
			t.Fatalf("%q: %d arguments", raw, len(args))
		}
		for _, a := range args {
			if !strings.Contains(raw, a.Raw) {
				t.Errorf("%q is not in %q", a.Raw, raw)
			}
			if a.Err != nil {
				if a.Spec != (ArgSpec{}) {
					t.Errorf("%q: both %v and %+v", a.Raw, a.Err, a.Spec)
				}
				continue
			}
			s := a.Spec
			if s.Kind == ArgUnreadable || s.Kind > ArgMemIndex || s.RegOff > last || s.IdxRegOff > last || s.Shift > 4 ||
				!slices.Contains([]uint8{1, 2, 4, 8}, s.Size) || s.Size != a.Size || (s.Flags&ArgSigned != 0) != a.Signed || (s.Flags&ArgFloat != 0) != a.Float {
				t.Errorf("%q: %+v", a.Raw, a)
			}
			if _, ok := evalArg(s, regs, func(uint64, []byte) error { return nil }); !ok {
				t.Errorf("%q: %+v has no value", a.Raw, s)
			}
		}
	})
}
