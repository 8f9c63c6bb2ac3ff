package uprobes

import (
	"debug/elf"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/sbxtrace/sbxtrace/symbolizer"
	"golang.org/x/arch/arm64/arm64asm"
)

func words(ws ...uint32) []byte {
	var code []byte
	for _, w := range ws {
		code = binary.LittleEndian.AppendUint32(code, w)
	}
	return code
}

func TestPlaceARM64(t *testing.T) {
	args := Options{NeedArgs: true}
	ret := Options{ReturnMethod: ReturnRet, NeedArgs: true}
	unwinds := Options{Unwinds: true}
	const (
		stp     = 0xa9bf7bfd // stp x29, x30, [sp, #-16]!
		movFP   = 0x910003fd // mov x29, sp
		bl      = 0x94000040 // bl +256
		ldp     = 0xa8c17bfd // ldp x29, x30, [sp], #16
		retLR   = 0xd65f03c0
		bti     = 0xd503245f // bti c
		paciasp = 0xd503233f
		autiasp = 0xd50323bf
		adrpX8  = 0xf0000008
		addX0   = 0x91000400 // add x0, x0, #1
		nop     = 0xd503201f
		// Go
		ldrLimit = 0xf9400b90 // ldr x16, [x28, #16]
		cmpSP    = 0xeb3063ff // cmp sp, x16
	)
	for _, test := range []struct {
		name string
		lang symbolizer.Lang
		opt  Options
		code []byte
		want placement
	}{
		{"frame record first", symbolizer.LangC, args, words(stp, movFP, bl, ldp, retLR),
			placement{class: SingleStepped, uret: true, props: "calls"}},
		{"with RET sites the call is simulated, sp moved", symbolizer.LangC, ret, words(stp, movFP, bl, ldp, retLR),
			placement{entry: 8, class: Emulated, sp: 16, rets: []int{16}, props: "calls"}},
		{"pointer authentication", symbolizer.LangC, args, words(paciasp, stp, movFP, bl, ldp, autiasp, retLR),
			placement{class: SingleStepped, uret: true, props: "calls"}},
		{"authenticated return cannot be probed", symbolizer.LangC, unwinds, words(paciasp, stp, movFP, bl, ldp, 0xd65f0bff),
			placement{entry: 12, class: Emulated, sp: 16, props: "calls", warning: "authenticated"}},
		{"early return: cbz after bti", symbolizer.LangC, args, words(bti, 0xb4000080, stp, bl, ldp, retLR),
			placement{entry: 4, class: Emulated, uret: true, props: "calls"}},
		{"adrp to a scratch register", symbolizer.LangC, args, words(adrpX8, addX0, retLR),
			placement{class: Emulated, uret: true}},
		{"argument changed before adrp", symbolizer.LangC, args, words(addX0, adrpX8, retLR),
			placement{class: SingleStepped, uret: true}},
		{"nop, kernel 6.13", symbolizer.LangC, Options{EmulatedNops: true}, words(nop, stp, bl, ldp, retLR),
			placement{class: Emulated, uret: true, props: "calls"}},
		{"nop, older kernel", symbolizer.LangC, Options{}, words(nop, stp, bl, ldp, retLR),
			placement{class: SingleStepped, uret: true, props: "calls"}},
		{"tail call", symbolizer.LangC, args, words(addX0, 0x14000040),
			placement{class: SingleStepped, uret: true, props: "tail"}},
		{"jump out with a frame", symbolizer.LangC, args, words(stp, 0xb4001000, bl, ldp, retLR),
			placement{class: SingleStepped, uret: true, props: "calls split"}},
		{"loop at the start", symbolizer.LangC, args, words(addX0, 0xb5ffffe0, retLR),
			placement{class: SingleStepped, uret: true, props: "loop", warning: "each round counts"}},
		{"alloca: the depth is unknown, then restored from x29", symbolizer.LangC, unwinds, words(stp, movFP, 0xcb2863ff, bl, 0x910003bf, ldp, retLR),
			placement{class: SingleStepped, rets: []int{24}, props: "calls"}},
		{"store-release first is refused: only the RET is left", symbolizer.LangC, args, words(0xc89ffc01, retLR),
			placement{entry: 4, class: Emulated, uret: true, warning: "arguments"}},
		{"exclusive load first: nothing can be probed", symbolizer.LangC, Options{ReturnMethod: ReturnNone}, words(addX0, 0xc85f7c01, retLR),
			placement{class: SingleStepped}},
		{"literal load first is refused: late, arguments gone", symbolizer.LangC, args, words(0x58000040, addX0, retLR),
			placement{entry: 4, class: SingleStepped, uret: true, warning: "arguments"}},
		{"Go, small frame", symbolizer.LangGo, args, words(
			ldrLimit, cmpSP, 0x540000e9, // b.ls +28
			0xf81e0ffe, 0xf81f83fd, 0xd10023fd, // str x30, [sp, #-32]!; stur x29, [sp, #-8]; sub x29, sp, #8
			0x94000040, 0xa97ffbfd, 0x910083ff, retLR, // bl; ldp x29, x30, [sp, #-8]; add sp, sp, #32; ret
			0xaa1e03e3, 0x94000100, 0x17fffff4), // mov x3, x30; bl morestack; b +0
			placement{entry: 24, class: Emulated, sp: 32, rets: []int{36}, props: "calls"}},
		{"Go, larger frame", symbolizer.LangGo, args, words(
			ldrLimit, 0xd10103f1, 0xeb10023f, 0x540000c9,
			0xf81e0ffe, 0xaa0003f3, 0x910083ff, retLR, // the argument is copied away: stepped
			0xaa1e03e3, 0x94000100, 0x17fffff6),
			placement{entry: 16, class: SingleStepped, rets: []int{28}, props: "calls"}},
		{"Go, nosplit leaf", symbolizer.LangGo, args, words(0xf9400000, retLR),
			placement{class: SingleStepped, rets: []int{4}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, err := Analyze(elf.EM_AARCH64, test.code, testFunction(test.code, test.lang), test.opt)
			if err != nil {
				t.Fatal(err)
			}
			checkPlacement(t, p, test.want)
		})
	}
}

// What the kernel does with instructions: arch/arm64/kernel/probes.
func TestClassARM64(t *testing.T) {
	const refused = 255
	for _, test := range []struct {
		word uint32
		name string
		want InsnClass
	}{
		{0x14000001, "b", Emulated},
		{0x94000001, "bl", Emulated},
		{0x54000041, "b.ne", Emulated},
		{0xb4000040, "cbz", Emulated},
		{0x35000040, "cbnz w", Emulated},
		{0x36000040, "tbz", Emulated},
		{0xb7f80040, "tbnz", Emulated},
		{0xd61f0200, "br x16", Emulated},
		{0xd63f0100, "blr x8", Emulated},
		{0xd65f03c0, "ret", Emulated},
		{0x10000040, "adr", Emulated},
		{0x90000008, "adrp", Emulated},
		{0xd503233f, "paciasp", SingleStepped},
		{0xd503245f, "bti c", SingleStepped},
		{0xd503201f, "nop, old kernel", SingleStepped},
		{0xa9bf7bfd, "stp", SingleStepped},
		{0xd10083ff, "sub sp", SingleStepped},
		{0xd53bd040, "mrs x0, tpidr_el0", SingleStepped},
		{0xd5033bbf, "dmb ish", SingleStepped},
		{0xd50323bf, "autiasp", refused},
		{0xd503207f, "wfi", refused},
		{0xd65f0bff, "retaa", refused},
		{0xd73f0800, "blraa", refused},
		{0xd4000001, "svc", refused},
		{0xd4200000, "brk", refused},
		{0xd51bd040, "msr tpidr_el0, x0", refused},
		{0x58000040, "ldr literal", refused},
		{0x1c000040, "ldr s0, literal", refused},
		{0xc85f7c01, "ldxr", refused},
		{0xc8027c01, "stxr", refused},
		{0x19010440, "cpyfp", refused},
		{0x00000000, "udf", refused},
	} {
		class, ok := classARM64(insnARM64(test.word), &Options{})
		if !ok {
			class = refused
		}
		if class != test.want {
			t.Errorf("%s (%#x): %s, want %s", test.name, test.word, class, test.want)
		}
	}
}

// Every function of a Go program for arm64, against golang.org/x/arch.
func TestGoBinaryARM64(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a program with the standard library for arm64")
	}
	dir := t.TempDir()
	src := filepath.Join(dir, "main.go")
	if err := os.WriteFile(src, []byte("package main\n\nimport \"fmt\"\n\nfunc main() { fmt.Println() }\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "main")
	build := exec.Command("go", "build", "-o", bin, src)
	build.Env = append(os.Environ(), "GOARCH=arm64", "GOOS=linux", "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build for arm64: %v\n%s", err, out)
	}
	dist := map[string]int{}
	fns := loadFuncs(t, bin, elf.EM_AARCH64)
	for i := range fns {
		fn := &fns[i]
		p, err := Analyze(elf.EM_AARCH64, fn.code, fn.Function, Options{NeedArgs: true})
		if err != nil {
			dist["refused"]++
			t.Log(err)
			continue
		}
		countPlan(dist, p)
		var want, got []int
		for off := 0; off+4 <= len(fn.code); off += 4 {
			if in, err := arm64asm.Decode(fn.code[off:]); err == nil && in.Op == arm64asm.RET {
				want = append(want, off)
			}
		}
		for _, s := range p.Returns {
			off := int(s.Offset - fn.Offset)
			if s.Role == RoleTail {
				if in, err := arm64asm.Decode(fn.code[off:]); err != nil || in.Op != arm64asm.B {
					t.Errorf("%s: tail site at +%d is %v", fn.Name, off, in)
				}
				continue
			}
			got = append(got, off)
		}
		if !slices.Equal(got, want) && len(p.Warnings) == 0 {
			t.Errorf("%s: RETs at %v, want %v", fn.Name, got, want)
		}
		checkEntryARM64(t, fn, p)
	}
	t.Logf("%d functions: %v", len(fns), dist)
	if dist["refused"] > 6 || dist["entry emulated"] < len(fns)/4 {
		t.Errorf("%d functions cannot be probed, %d of %d entries are emulated", dist["refused"], dist["entry emulated"], len(fns))
	}
}

// checkEntryARM64 proves with the disassembler that no branch of the function
// leads to the entry site or between it and the first byte.
func checkEntryARM64(t *testing.T, fn *testFunc, p *Plan) {
	t.Helper()
	site := int(p.Entry.Offset - fn.Offset)
	if site%4 != 0 || site >= len(fn.code) {
		t.Errorf("%s: entry at +%d", fn.Name, site)
	}
	for off := 0; off+4 <= len(fn.code); off += 4 {
		in, err := arm64asm.Decode(fn.code[off:])
		if err != nil || in.Op == arm64asm.BL {
			continue
		}
		for _, arg := range in.Args {
			if rel, ok := arg.(arm64asm.PCRel); ok && in.Op != arm64asm.ADR && in.Op != arm64asm.ADRP {
				if to := off + int(rel); to > 0 && to <= site {
					t.Errorf("%s: %s at +%d leads to +%d, entry at +%d", fn.Name, in, off, to, site)
				}
			}
		}
	}
}
