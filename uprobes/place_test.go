package uprobes

import (
	"debug/elf"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"

	"github.com/sbxtrace/sbxtrace/symbolizer"
)

// checkInvariants holds for every plan of every code.
func checkInvariants(fn *symbolizer.Function, arch elf.Machine, opt Options, p *Plan) error {
	inside := func(s Site) bool { return s.Offset >= fn.Offset && s.Offset-fn.Offset < fn.Size }
	for _, s := range append([]Site{p.Entry}, p.Returns...) {
		switch {
		case !inside(s):
			return fmt.Errorf("site %+v is outside of the function", s)
		case arch == elf.EM_AARCH64 && s.Offset%4 != 0:
			return fmt.Errorf("site %+v is not aligned", s)
		case s.SPAdjust < 0 || s.SPAdjust > MaxSPAdjust || s.SPAdjust%8 != 0:
			return fmt.Errorf("site %+v: bad stack adjustment", s)
		case s.Reason == "":
			return fmt.Errorf("site %+v has no reason", s)
		}
	}
	for i, s := range p.Returns {
		switch {
		case s.Role == RoleReturn && (len(p.Returns) != 1 || s.Offset != p.Entry.Offset || p.Entry.SPAdjust != 0):
			return fmt.Errorf("return probe %+v with entry %+v", p.Returns, p.Entry)
		case s.Role == RoleReturn && (fn.Lang == symbolizer.LangGo || opt.ReturnMethod == ReturnRet):
			return fmt.Errorf("return probe %+v", s)
		case s.Role != RoleReturn && (s.Role != RoleRet && s.Role != RoleTail || opt.ReturnMethod == ReturnUretprobe):
			return fmt.Errorf("return site %+v", s)
		case i > 0 && s.Offset <= p.Returns[i-1].Offset:
			return fmt.Errorf("return sites not ascending: %+v", p.Returns)
		}
	}
	switch {
	case opt.ReturnMethod == ReturnNone && len(p.Returns) > 0:
		return errors.New("returns though none are wanted")
	case p.NoReturn && (len(p.Returns) > 0 || p.TailJumps):
		return fmt.Errorf("never returns, but %+v", p)
	case p.Split != (len(p.Parts) > 0):
		return fmt.Errorf("split %t with parts %#x", p.Split, p.Parts)
	}
	return nil
}

func FuzzAnalyze(f *testing.F) {
	for _, code := range []string{
		"\x55\x48\x89\xe5\x5d\xc3",
		"\xf3\x0f\x1e\xfa\x53\xe8\x00\x01\x00\x00\x5b\xc3",
		"\x49\x3b\x66\x10\x76\x07\x55\x48\x89\xe5\x90\x5d\xc3\xe8\x00\x02\x00\x00\xeb\xec",
		"\x53\xeb\x05\xc3\x06\x06\xc3\xc3\xe8\x00\x01\x00\x00\x5b\xc3",
		"\x53\x64\x83\x3c\x25\x18\x00\x00\x00\x00\x74\x01\xf0\x0f\xb1\x0f\x5b\xc3",
		"\xfd\x7b\xbf\xa9\xfd\x03\x00\x91\x40\x00\x00\x94\xfd\x7b\xc1\xa8\xc0\x03\x5f\xd6",
		"\x48\x63\x04\xba\x48\x01\xd0\xff\xe0",
	} {
		for kind := range uint8(8) {
			f.Add([]byte(code), kind, uint16(0xffff))
		}
	}
	f.Fuzz(func(t *testing.T, code []byte, kind uint8, flags uint16) {
		arch, lang := elf.EM_X86_64, symbolizer.LangC
		if kind&1 != 0 {
			arch = elf.EM_AARCH64
		}
		if kind&2 != 0 {
			lang = symbolizer.LangGo
		}
		opt := Options{
			ReturnMethod: ReturnMethod(kind >> 2 & 3), Unwinds: flags&1 != 0, NeedArgs: flags&2 != 0,
			EmulatedNops: flags&4 != 0, Optimized5ByteNop: flags&8 != 0,
		}
		if flags&16 != 0 {
			opt.SameFunction = func(a uint64) bool { return a&1 == 0 }
			opt.OtherEntry = func(a uint64) bool { return a&7 == 7 }
		}
		fn := testFunction(code, lang)
		p, err := Analyze(arch, code, fn, opt)
		if (p == nil) == (err == nil) {
			t.Fatalf("plan %+v, error %v", p, err)
		}
		if err != nil {
			if !errors.Is(err, ErrNotProbeable) && !errors.Is(err, ErrUnsafe) {
				t.Fatal(err)
			}
			return
		}
		if err := checkInvariants(&fn, arch, opt, p); err != nil {
			t.Fatal(err)
		}
		again, err := Analyze(arch, code, fn, opt)
		if err != nil || !reflect.DeepEqual(p, again) {
			t.Fatalf("second time %+v, %v; first %+v", again, err, p)
		}
		part := fn
		part.Fragment = true
		part.Offset += fn.Size
		p.AddPart(arch, code, part)
	})
}

// Analyses share nothing but a pool: run with -race.
func TestAnalyzeConcurrently(t *testing.T) {
	type function struct {
		code []byte
		want *Plan
	}
	var fns []function
	for _, code := range []string{"53 e8 00 01 00 00 5b c3", "49 3b 66 10 76 07 55 48 89 e5 90 5d c3 e8 00 02 00 00 eb ec", "48 ff c7 84 c0 75 f6 c3"} {
		c := unhex(t, code)
		p, err := Analyze(elf.EM_X86_64, c, testFunction(c, symbolizer.LangC), Options{Unwinds: true})
		if err != nil {
			t.Fatal(err)
		}
		fns = append(fns, function{c, p})
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 200 {
				fn := fns[(g+i)%len(fns)]
				p, err := Analyze(elf.EM_X86_64, fn.code, testFunction(fn.code, symbolizer.LangC), Options{Unwinds: true})
				if err != nil || !reflect.DeepEqual(p, fn.want) {
					t.Errorf("got %+v, %v; want %+v", p, err, fn.want)
				}
			}
		})
	}
	wg.Wait()
}

func TestCostModel(t *testing.T) {
	step := Site{Role: RoleEntry, Class: SingleStepped}
	push := Site{Role: RoleEntry, Class: Emulated}
	nop := Site{Role: RoleEntry, Class: Nop5Optimized}
	for _, m := range []CostModel{VirtualCost, BareMetalCost} {
		if n, p, s := m.Estimate(nop), m.Estimate(push), m.Estimate(step); n >= p || p*2 > s {
			t.Errorf("costs %d, %d, %d: want nop < emulated, and single-stepping at least twice that", n, p, s)
		}
		plan := Plan{Entry: push, Returns: []Site{{Role: RoleReturn, Class: Emulated}}}
		if got, want := m.EstimateCall(&plan), m.Hit[Emulated]+m.Return; got != want {
			t.Errorf("call with a return probe: %d ns, want %d", got, want)
		}
		plan.Returns = []Site{{Role: RoleRet, Class: SingleStepped}, {Role: RoleRet, Class: SingleStepped}}
		if got, want := m.EstimateCall(&plan), m.Hit[Emulated]+m.Hit[SingleStepped]; got != want {
			t.Errorf("call with RET sites: %d ns, want %d: only one RET runs", got, want)
		}
		if got := m.Estimate(Site{Class: 200}); got != m.Hit[SingleStepped] {
			t.Errorf("unknown class costs %d, want the worst case", got)
		}
	}
}

func TestArgRegisters(t *testing.T) {
	goFn, cFn := symbolizer.Function{Lang: symbolizer.LangGo}, symbolizer.Function{Lang: symbolizer.LangRust}
	asm := symbolizer.Function{Lang: symbolizer.LangGo, ABI0: true}
	for _, test := range []struct {
		arch  elf.Machine
		fn    symbolizer.Function
		first string
		n     int
		ret   string
		ok    bool
	}{
		{elf.EM_X86_64, cFn, "rdi", 6, "rax", true},
		{elf.EM_X86_64, goFn, "rax", 9, "rax", true},
		{elf.EM_AARCH64, cFn, "x0", 8, "x0", true},
		{elf.EM_AARCH64, goFn, "x0", 16, "x0", true},
		{elf.EM_X86_64, asm, "", 0, "", false},
		{elf.EM_RISCV, cFn, "", 0, "", false},
	} {
		r, ok := ArgRegisters(test.arch, &test.fn)
		if ok != test.ok || len(r.Args) != test.n {
			t.Errorf("%s %s: %+v, %t", test.arch, test.fn.Lang, r, ok)
			continue
		}
		if ok && (r.Args[0] != test.first || r.Results[0] != test.ret) {
			t.Errorf("%s %s: %+v", test.arch, test.fn.Lang, r)
		}
	}
	// What a site may not come behind agrees with what is recorded.
	for lang, mask := range map[symbolizer.Lang]uint32{symbolizer.LangC: argRegsSysV, symbolizer.LangGo: argRegsGo} {
		r, _ := ArgRegisters(elf.EM_X86_64, &symbolizer.Function{Lang: lang})
		for _, name := range append(slices.Clone(r.Args), r.Context, r.G) {
			if i := slices.Index(regNames64, name); name != "" && mask>>i&1 == 0 {
				t.Errorf("%s: %s may be changed before an entry site", lang, name)
			}
		}
	}
}

func TestStrings(t *testing.T) {
	for _, test := range []struct{ got, want string }{
		{RoleEntry.String(), "entry"}, {RoleReturn.String(), "return"}, {RoleRet.String(), "ret"}, {RoleUSDT.String(), "usdt"},
		{Role(9).String(), "unknown"},
		{Nop5Optimized.String(), "optimized nop"}, {Emulated.String(), "emulated"}, {SingleStepped.String(), "single-stepped"},
		{InsnClass(9).String(), "unknown"},
		{ReturnAuto.String(), "auto"}, {ReturnUretprobe.String(), "uretprobe"}, {ReturnRet.String(), "ret"}, {ReturnNone.String(), "none"},
		{ReturnMethod(9).String(), "unknown"},
	} {
		if test.got != test.want {
			t.Errorf("got %q, want %q", test.got, test.want)
		}
	}
}
