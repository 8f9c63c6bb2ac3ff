package uprobes

import (
	"testing"

	"golang.org/x/arch/x86/x86asm"
)

// Lengths of encodings that no compiler on the test machine emits or that
// golang.org/x/arch does not know. What compilers emit is compared with objdump
// in TestRealBinaries.
func TestDecodeAMD64(t *testing.T) {
	for _, test := range []struct {
		name, code string // the instruction, without what follows
	}{
		{"nop", "90"},
		{"data16 rex.w call (TLS)", "66 48 e8 01 00 00 00"},
		{"data16 lea (TLS)", "66 48 8d 3d 01 00 00 00"},
		{"jmp rel32 with 66: not shortened", "66 e9 01 00 00 00"},
		{"mov imm16", "66 b8 01 00"},
		{"mov imm64", "48 b8 01 02 03 04 05 06 07 08"},
		{"66 and rex.w: imm32", "66 48 c7 c0 01 00 00 00"},
		{"moffs", "48 a1 01 02 03 04 05 06 07 08"},
		{"moffs, 32-bit address", "67 a1 01 02 03 04"},
		{"enter", "c8 10 00 01"},
		{"test imm8 of group 3", "f6 c0 01"},
		{"not, no immediate", "f7 d0"},
		{"test imm16 of group 3", "66 f7 c0 01 00"},
		{"sib without base", "8b 04 25 01 00 00 00"},
		{"sib with disp8", "8b 44 24 08"},
		{"disp32", "8b 80 01 00 00 00"},
		{"rip-relative with imm8", "83 3d 01 00 00 00 05"},
		{"jrcxz", "e3 05"},
		{"xbegin", "c7 f8 01 00 00 00"},
		{"pshufb", "66 0f 38 00 c1"},
		{"palignr", "66 0f 3a 0f c1 08"},
		{"3DNow!", "0f 0f c1 9e"},
		{"extrq", "66 0f 78 c1 01 02"},
		{"rdsspq", "f3 48 0f 1e c8"},
		{"ud1", "0f b9 c0"},
		{"vzeroupper", "c5 f8 77"},
		{"vpxor", "c5 f9 ef c0"},
		{"vpshufd imm8", "c5 f9 70 c0 1b"},
		{"vcmpps imm8", "c5 f8 c2 c1 00"},
		{"vex3 map 2: andn", "c4 e2 70 f2 c2"},
		{"vex3 map 3: rorx", "c4 e3 7b f0 c0 08"},
		{"vex gather with vector index", "c4 e2 f9 90 04 0f"},
		{"kmovw", "c5 f8 92 c8"},
		{"kshiftrw", "c4 e3 f9 30 c8 08"},
		{"evex disp8", "62 f1 fe 48 6f 47 01"},
		{"evex imm8", "62 f3 75 48 25 c2 ff"},
		{"evex rip-relative and imm8", "62 f3 75 48 25 05 01 00 00 00 ff"},
		{"evex map 5: vaddph", "62 f5 74 48 58 c2"},
		{"evex map 6: vfmadd132ph", "62 f6 75 48 98 c2"},
		{"xop map 8", "8f e8 78 a2 c0 10"},
		{"xop map 9", "8f e9 78 01 c8"},
		{"xop map 10", "8f ea 78 10 c0 01 00 00 00"},
		{"pop to memory is no xop", "8f 00"},
		{"rex that does not count", "48 66 90"},
	} {
		code := unhex(t, test.code)
		var in insnAMD64
		padded := append(code[:len(code):len(code)], 0x90, 0x90, 0x90, 0x90)
		if !decodeAMD64(padded, &in) || int(in.length) != len(code) {
			t.Errorf("%s: length %d, want %d", test.name, in.length, len(code))
		}
		for cut := range code {
			if cut > 0 && decodeAMD64(code[:cut], &in) && test.name != "rex that does not count" {
				t.Errorf("%s: decoded when cut to %d bytes", test.name, cut)
			}
		}
	}
	for name, code := range map[string]string{
		"empty":                    "",
		"prefixes only":            "66 66",
		"sixteen bytes":            "66 66 66 66 66 66 66 66 66 66 66 66 66 66 66 90",
		"push es":                  "06",
		"rex.w vex":                "48 c5 f8 77",
		"66 evex":                  "66 62 f1 fe 48 6f 47 01",
		"vex map 0":                "c4 e0 78 77 00",
		"evex map 7":               "62 f7 7c 48 77 00",
		"xop map 11":               "8f eb 78 a2 c0 10",
		"undefined two-byte 0f 04": "0f 04 c0",
	} {
		var in insnAMD64
		if decodeAMD64(unhex(t, code), &in) {
			t.Errorf("%s: decoded with length %d, want none", name, in.length)
		}
	}
}

// FuzzDecodeAMD64 compares lengths with golang.org/x/arch where that knows the
// instruction.
func FuzzDecodeAMD64(f *testing.F) {
	for _, s := range []string{
		"\x48\x89\xe5", "\x0f\x1f\x44\x00\x00", "\xc5\xf9\xef\xc0", "\x66\x48\xe8\x01\x00\x00\x00",
		"\xf6\x05\x01\x00\x00\x00\x02", "\x67\xa1\x01\x02\x03\x04", "\xc8\x01\x00\x02",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, code []byte) {
		var in insnAMD64
		ok := decodeAMD64(code, &in)
		if ok && (in.length == 0 || int(in.length) > min(len(code), maxInsn)) {
			t.Fatalf("%x: length %d of %d bytes", code, in.length, len(code))
		}
		want, err := x86asm.Decode(code, 64)
		if err != nil || want.Op == 0 || !comparable64(&want) {
			return
		}
		if !ok {
			t.Fatalf("%x: not decoded, x86asm: %v, %d bytes", code[:want.Len], want, want.Len)
		}
		if int(in.length) != want.Len {
			t.Fatalf("%x: length %d, x86asm: %v, %d bytes", code[:want.Len], in.length, want, want.Len)
		}
	})
}

// comparable64 leaves out what golang.org/x/arch decodes otherwise than
// processors in 64-bit mode do.
func comparable64(in *x86asm.Inst) bool {
	for _, p := range in.Prefix {
		switch p &^ (x86asm.PrefixImplicit | x86asm.PrefixIgnored | x86asm.PrefixInvalid) {
		case 0xc4, 0xc5, 0x62: // takes vector instructions without operands
			return false
		}
	}
	for _, a := range in.Args {
		switch a := a.(type) {
		case x86asm.Rel:
			if in.Prefix[0] != 0 {
				return false // 66 shortens no branch on Intel's processors
			}
		case x86asm.Reg:
			if a >= x86asm.TR0 && a <= x86asm.TR7 {
				return false // test registers are gone
			}
		}
	}
	return true
}

// Where the kernel takes a vector instruction for another one there must be no
// probe: each of these had no effect, another effect or killed the process when it
// was probed on Linux 6.18, but for the last.
func TestVectorInstructionsTheKernelMistakes(t *testing.T) {
	for _, test := range []struct {
		name, code string
		ok         bool
	}{
		{"vpbroadcastb %esi, %zmm16", "62 e2 7d 48 7a c6", false}, // jp
		{"vpshufd", "c5 f9 70 c0 01", false},                      // jo
		{"vzeroupper", "c5 f8 77", false},                         // ja
		{"vmovdqu to memory", "c5 fa 7f 07", false},               // jg
		{"vpor", "c5 f9 eb c0", false},                            // jmp
		{"vpsubsb", "c5 f9 e8 c0", false},                         // call
		{"kmovq", "c4 e1 f8 90 0f", false},                        // nop
		{"vfnmadd132ss", "c4 e2 79 9d c0", false},                 // popf
		{"vcmpps", "c5 f8 c2 c0 01", false},                       // ret
		{"vpminsw", "c5 f9 ea c0", false},                         // far jump, refused
		{"vxorps", "c5 f8 57 c0", true},
		{"vmovaps from memory", "c5 f8 28 07", true},
	} {
		var in insnAMD64
		code := unhex(t, test.code)
		if !decodeAMD64(code, &in) {
			t.Fatalf("%s does not decode", test.name)
		}
		class, ok := classAMD64(code, &in, &Options{EmulatedNops: true, Optimized5ByteNop: true})
		if ok != test.ok || ok && class != SingleStepped {
			t.Errorf("%s: %v, %v, want %v", test.name, class, ok, test.ok)
		}
	}
}
