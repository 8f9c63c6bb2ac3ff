package uprobes

import (
	"debug/elf"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/sbxtrace/sbxtrace/symbolizer"
)

// testBase is where test functions lie: addresses and file offsets differ.
const (
	testAddr   = 0x401000
	testOffset = 0x2000
)

// unhex decodes machine code written as hex bytes; parts after '#' in a line
// are comments.
func unhex(tb testing.TB, s string) []byte {
	tb.Helper()
	var digits strings.Builder
	for line := range strings.Lines(s) {
		line, _, _ = strings.Cut(line, "#")
		for f := range strings.FieldsSeq(line) {
			digits.WriteString(f)
		}
	}
	b, err := hex.DecodeString(digits.String())
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func testFunction(code []byte, lang symbolizer.Lang) symbolizer.Function {
	return symbolizer.Function{
		Name: "f", Symbol: "f", Addr: testAddr, Offset: testOffset, Size: uint64(len(code)), Lang: lang,
	}
}

// retOffsets lists the sites of RET instructions relative to the function.
func retOffsets(p *Plan) (offs []int) {
	for _, s := range p.Returns {
		if s.Role == RoleRet {
			offs = append(offs, int(s.Offset)-testOffset)
		}
	}
	return offs
}

// placement is what a test expects of a plan.
type placement struct {
	entry   int // offset of the entry site
	class   InsnClass
	sp      int32
	rets    []int // offsets of RET sites; nil and not uret: no returns
	uret    bool  // one return probe
	props   string
	warning string // part of a warning
}

// props spells the properties of a plan.
func props(p *Plan) string {
	var s []string
	for _, f := range []struct {
		is   bool
		name string
	}{
		{p.Calls, "calls"}, {p.TailJumps, "tail"}, {p.Split, "split"}, {p.SelfRecursive, "self"}, {p.NoReturn, "noreturn"}, {p.LoopsAtStart, "loop"},
	} {
		if f.is {
			s = append(s, f.name)
		}
	}
	return strings.Join(s, " ")
}

func checkPlacement(t *testing.T, p *Plan, want placement) {
	t.Helper()
	if got := int(p.Entry.Offset) - testOffset; got != want.entry || p.Entry.Class != want.class || p.Entry.SPAdjust != want.sp {
		t.Errorf("entry at +%d, %s, sp+%d; want +%d, %s, sp+%d (%s)",
			got, p.Entry.Class, p.Entry.SPAdjust, want.entry, want.class, want.sp, p.Entry.Reason)
	}
	if p.Entry.Role != RoleEntry || p.Entry.Reason == "" {
		t.Errorf("entry site %+v: want role entry and a reason", p.Entry)
	}
	if got := retOffsets(p); !slices.Equal(got, want.rets) {
		t.Errorf("RET sites at %v, want %v", got, want.rets)
	}
	uret := len(p.Returns) == 1 && p.Returns[0].Role == RoleReturn
	if uret != want.uret {
		t.Errorf("returns %+v, want a return probe: %t", p.Returns, want.uret)
	}
	if uret && p.Returns[0].Offset != p.Entry.Offset {
		t.Errorf("return probe at %#x, entry at %#x", p.Returns[0].Offset, p.Entry.Offset)
	}
	if got := props(p); got != want.props {
		t.Errorf("properties %q, want %q", got, want.props)
	}
	if all := strings.Join(p.Warnings, "; "); want.warning == "" && all != "" || !strings.Contains(all, want.warning) {
		t.Errorf("warnings %q, want %q", all, want.warning)
	}
}

func TestPlaceAMD64(t *testing.T) {
	args := Options{NeedArgs: true}
	unwinds := Options{Unwinds: true}
	nops := Options{Optimized5ByteNop: true}
	ret := Options{ReturnMethod: ReturnRet}
	const (
		c  = symbolizer.LangC
		gO = symbolizer.LangGo
	)
	for _, test := range []struct {
		name string
		lang symbolizer.Lang
		opt  Options
		code string
		want placement
	}{
		{"gcc -O0", c, args, `
			55                # push %rbp
			48 89 e5          # mov %rsp, %rbp
			48 83 ec 10       # sub $16, %rsp
			89 7d fc          # mov %edi, -4(%rbp)
			e8 00 01 00 00    # call
			c9 c3             # leave; ret`,
			placement{class: Emulated, uret: true, props: "calls"}},
		{"gcc -O2 -fcf-protection: push after endbr64", c, args, `
			f3 0f 1e fa       # endbr64
			53                # push %rbx
			48 89 fb          # mov %rdi, %rbx
			e8 00 01 00 00    # call
			5b c3             # pop; ret`,
			placement{entry: 4, class: Emulated, uret: true, props: "calls"}},
		{"push of an upper register", c, args, `f3 0f 1e fa 41 57 49 89 ff e8 00 01 00 00 41 5f c3`,
			placement{entry: 4, class: Emulated, uret: true, props: "calls"}},
		{"arguments copied before the push", c, args, `
			48 89 f8          # mov %rdi, %rax: rax counts vector registers of variadic calls
			53 e8 00 01 00 00 5b c3`,
			placement{class: SingleStepped, uret: true, props: "calls"}},
		{"the same where arguments do not matter", c, Options{}, `48 89 f8 53 e8 00 01 00 00 5b c3`,
			placement{entry: 3, class: Emulated, uret: true, props: "calls"}},
		{"a register that carries no argument", c, args, `
			41 89 fb          # mov %edi, %r11d
			55 e8 00 01 00 00 5d c3`,
			placement{entry: 3, class: Emulated, uret: true, props: "calls"}},
		{"frame before a call: a return probe needs sp as at entry", c, Options{}, `
			48 83 ec 08       # sub $8, %rsp
			e8 00 01 00 00    # call
			48 83 c4 08 c3`,
			placement{class: SingleStepped, uret: true, props: "calls"}},
		{"the same with RET sites: the call is emulated", c, ret, `48 83 ec 08 e8 00 01 00 00 48 83 c4 08 c3`,
			placement{entry: 4, class: Emulated, sp: 8, rets: []int{13}, props: "calls"}},
		{"stack protector", c, ret, `
			48 83 ec 18                   # sub $24, %rsp
			64 48 8b 04 25 28 00 00 00    # mov %fs:40, %rax
			48 89 44 24 08                # mov %rax, 8(%rsp)
			31 c0 e8 00 01 00 00          # xor; call
			48 8b 54 24 08 64 48 2b 14 25 28 00 00 00
			75 05 48 83 c4 18 c3          # jne; add; ret
			e8 00 01 00 00                # call __stack_chk_fail`,
			placement{entry: 20, class: Emulated, sp: 24, rets: []int{45}, props: "calls"}},
		{"the same with arguments: rax is changed", c, Options{ReturnMethod: ReturnRet, NeedArgs: true}, `
			48 83 ec 18 64 48 8b 04 25 28 00 00 00 48 89 44 24 08 31 c0 e8 00 01 00 00 48 83 c4 18 c3`,
			placement{class: SingleStepped, rets: []int{29}, props: "calls"}},
		{"-fpatchable-function-entry=5", c, args, `90 90 90 90 90 53 e8 00 01 00 00 5b c3`,
			placement{class: Emulated, uret: true, props: "calls"}},
		{"-mfentry -fcf-protection: the call of __fentry__", c, args, `f3 0f 1e fa e8 00 01 00 00 55 48 89 e5 5d c3`,
			placement{entry: 4, class: Emulated, uret: true, props: "calls"}},
		{"5-byte nop, kernel 6.18", c, nops, `0f 1f 44 00 00 53 e8 00 01 00 00 5b c3`,
			placement{class: Nop5Optimized, uret: true, props: "calls"}},
		{"5-byte nop, older kernel: stepped, so the push", c, Options{}, `0f 1f 44 00 00 53 e8 00 01 00 00 5b c3`,
			placement{entry: 5, class: Emulated, uret: true, props: "calls"}},
		{"5-byte nop, kernel 6.16", c, Options{EmulatedNops: true}, `0f 1f 44 00 00 53 e8 00 01 00 00 5b c3`,
			placement{class: Emulated, uret: true, props: "calls"}},
		{"5-byte nop after endbr64", c, nops, `f3 0f 1e fa 0f 1f 44 00 00 53 5b c3`,
			placement{entry: 4, class: Nop5Optimized, uret: true}},
		{"5-byte nop in a leaf's body, whose variables lie below sp", c, nops, `89 7c 24 fc 0f 1f 44 00 00 8b 44 24 fc c3`,
			placement{class: SingleStepped, uret: true}},
		{"nop with a cs prefix is refused", c, nops, `66 2e 0f 1f 84 00 00 00 00 00 53 5b c3`,
			placement{entry: 10, class: Emulated, uret: true}},
		{"early return: the branch itself", c, args, `
			48 85 ff          # test %rdi, %rdi
			74 0a             # je +17
			53                # push: not on every path
			e8 00 01 00 00 8b 03 5b c3
			90 31 c0 c3`,
			placement{entry: 3, class: Emulated, uret: true, props: "calls"}},
		{"loop at the start", c, args, `
			0f b6 07          # movzbl (%rdi), %eax
			48 ff c7          # inc %rdi
			84 c0             # test %al, %al
			75 f6             # jne +0
			c3`,
			placement{class: SingleStepped, uret: true, props: "loop", warning: "each round counts"}},
		{"loop whose head lies before the push", c, Options{}, `
			31 c0             # xor %eax, %eax
			48 ff c8          # dec %rax, loop head
			53 5b             # push; pop
			75 f9             # jne +2
			c3`,
			placement{class: SingleStepped, uret: true}},
		{"loop right behind the push", c, args, `53 48 ff c8 75 fb 5b c3`,
			placement{class: Emulated, uret: true}},
		{"tail call", c, args, `48 83 c7 01 e9 00 01 00 00`,
			placement{class: SingleStepped, uret: true, props: "tail"}},
		{"tail call where exceptions unwind: nothing to probe at the end", c, unwinds, `48 83 c7 01 e9 00 01 00 00`,
			placement{entry: 4, class: Emulated, props: "tail"}},
		{"tail call through a register", c, args, `48 8b 07 ff e0`,
			placement{class: SingleStepped, uret: true, props: "tail"}},
		{"virtual tail call from memory", c, Options{}, `48 8b 07 ff 60 10`,
			placement{class: SingleStepped, uret: true, props: "tail"}},
		{"jump out with a frame on the stack: a cold part", c, args, `53 85 ff 0f 84 00 02 00 00 e8 00 01 00 00 5b c3`,
			placement{class: Emulated, uret: true, props: "calls split"}},
		{"switch table with a frame", c, args, `
			53                      # push
			48 8d 15 00 10 00 00    # lea table(%rip), %rdx
			48 63 04 ba             # movslq (%rdx,%rdi,4), %rax
			48 01 d0                # add %rdx, %rax
			ff e0                   # jmp *%rax
			e8 00 01 00 00 5b c3`,
			placement{class: Emulated, uret: true, props: "calls"}},
		{"switch table without a frame", c, args, `48 8d 15 00 10 00 00 48 63 04 ba 48 01 d0 ff e0 31 c0 c3`,
			placement{class: SingleStepped, uret: true}},
		{"notrack switch table", c, args, `89 f8 3e ff e0 31 c0 c3`,
			placement{class: SingleStepped, uret: true}},
		{"leaf where exceptions unwind", c, unwinds, `8d 04 3f c3`,
			placement{class: SingleStepped, uret: true}},
		{"RET forms", c, unwinds, `53 e8 00 01 00 00 85 c0 74 06 5b f3 c3 # rep ret
			90 90 90 5b c2 08 00 # ret $8
			5b f2 c3 # bnd ret`,
			placement{class: Emulated, rets: []int{11, 17, 21}, props: "calls"}},
		{"frame pointer and leave", c, unwinds, `55 48 89 e5 48 83 e4 e0 48 81 ec 00 01 00 00 e8 00 01 00 00 c9 e9 00 02 00 00`,
			placement{class: Emulated, props: "calls tail"}},
		{"clang -O2 with AVX-512 in the body", c, unwinds, `
			50                      # push %rax
			62 f1 fe 48 6f 07       # vmovdqu64 (%rdi), %zmm0
			62 f1 7d 48 ef c0       # vpxord %zmm0, %zmm0, %zmm0
			62 f3 75 48 25 c2 ff    # vpternlogd $255, %zmm2, %zmm1, %zmm0
			c5 f8 77                # vzeroupper
			e8 00 01 00 00 58 c3`,
			placement{class: Emulated, rets: []int{29}, props: "calls"}},
		{"RET byte inside an instruction", c, unwinds, `53 b8 c3 c3 c3 c3 e8 00 01 00 00 5b c3`,
			placement{class: Emulated, rets: []int{12}, props: "calls"}},
		{"data after a jump: proven RET only", c, unwinds, `53 eb 05 c3 06 06 c3 c3 e8 00 01 00 00 5b c3`,
			placement{class: Emulated, rets: []int{14}, props: "calls", warning: "data among the code"}},
		{"lock prefix jumped over", c, unwinds, `
			53 64 83 3c 25 18 00 00 00 00   # push; cmpl $0, %fs:24
			74 01 f0 0f b1 0f               # je over the prefix; lock cmpxchg %ecx, (%rdi)
			e8 00 01 00 00 5b c3`,
			placement{class: Emulated, rets: []int{22}, props: "calls"}},
		{"locked first instruction is refused: late, arguments gone", c, args, `f0 ff 07 b8 01 00 00 00 c3`,
			placement{entry: 3, class: SingleStepped, uret: true, warning: "arguments may have changed"}},
		{"evex with the opcode of jp: the kernel would jump", c, args, `
			62 e2 7d 28 7a c6       # vpbroadcastb %esi, %ymm16
			89 f8                   # mov %edi, %eax
			25 ff 0f 00 00          # and $4095, %eax
			3d e0 0f 00 00          # cmp $4064, %eax
			0f 87 00 00 00 00       # ja
			c3`,
			placement{entry: 6, class: SingleStepped, uret: true}},
		{"the same where arguments do not matter", c, Options{}, `
			62 e2 7d 28 7a c6 89 f8 25 ff 0f 00 00 3d e0 0f 00 00 0f 87 00 00 00 00 c3`,
			placement{entry: 18, class: Emulated, uret: true}},
		{"vpor: the kernel would jump", c, Options{}, `c5 f9 eb c1 31 c0 c3`,
			placement{entry: 4, class: SingleStepped, uret: true}},
		{"vmovdqu to memory: the kernel would leave it out", c, Options{}, `c5 fe 7f 07 31 c0 c3`,
			placement{entry: 4, class: SingleStepped, uret: true}},
		{"vcmpltsd: the kernel would take it for a ret", c, Options{}, `c5 fb c2 c1 01 53 e8 00 01 00 00 5b c3`,
			placement{entry: 5, class: Emulated, uret: true, props: "calls"}},
		{"vfnmadd213sd: the kernel would leave the trap flag set", c, Options{}, `c4 e2 f1 9d c2 c3`,
			placement{entry: 5, class: SingleStepped, uret: true}},
		{"vxorps is stepped", c, Options{}, `c5 f8 57 c0 c3`,
			placement{class: SingleStepped, uret: true}},
		{"xchg with %r8 is no nop", c, Options{}, `41 90 c3`,
			placement{entry: 2, class: SingleStepped, uret: true}},
		{"never returns", c, args, `50 e8 00 01 00 00`,
			placement{class: Emulated, props: "calls noreturn"}},
		{"endless loop", c, args, `50 e8 00 01 00 00 eb f9`,
			placement{class: Emulated, props: "calls noreturn"}},
		{"self call", c, args, `53 85 ff 74 05 e8 f6 ff ff ff 5b c3`,
			placement{class: Emulated, uret: true, props: "calls self"}},
		{"reads its return address, as dlsym does", c, args, `48 8b 14 24 53 e8 00 01 00 00 5b c3`,
			placement{class: SingleStepped, rets: []int{11}, props: "calls"}},
		{"switches to a stack that it was given", c, args, `53 55 48 89 27 48 8b 26 5d 5b c3`,
			placement{class: Emulated, warning: "switches stacks"}},
		{"push of a constant is stepped", c, Options{ReturnMethod: ReturnNone}, `6a 00 31 c0 58 c3`,
			placement{class: SingleStepped}},
		{"no returns wanted", c, Options{ReturnMethod: ReturnNone}, `48 83 ec 08 e8 00 01 00 00 48 83 c4 08 c3`,
			placement{entry: 4, class: Emulated, sp: 8, props: "calls"}},

		{"Go, small frame", gO, args, `
			49 3b 66 10       # cmp 16(%r14), %rsp
			76 12             # jbe +24
			55 48 89 e5       # push %rbp; mov %rsp, %rbp
			48 83 ec 10       # sub $16, %rsp
			e8 00 01 00 00    # call
			48 83 c4 10 5d c3
			e8 00 02 00 00    # call runtime.morestack
			eb e0             # jmp +0`,
			placement{entry: 6, class: Emulated, rets: []int{24}, props: "calls"}},
		{"Go, larger frame", gO, args, `
			4c 8d 64 24 f8    # lea -8(%rsp), %r12
			4d 3b 66 10       # cmp 16(%r14), %r12
			0f 86 14 00 00 00 # jbe +35
			55 48 89 e5 48 81 ec 80 00 00 00
			48 81 c4 80 00 00 00 5d c3
			e8 00 02 00 00 eb d6`,
			placement{entry: 15, class: Emulated, rets: []int{34}, props: "calls"}},
		{"Go, huge frame", gO, args, `
			49 89 e4                # mov %rsp, %r12
			49 81 ec 00 00 10 00    # sub $1048576, %r12
			72 0d                   # jb +25
			4d 3b 66 10             # cmp 16(%r14), %r12
			76 07                   # jbe +25
			55 48 89 e5 90 5d c3
			e8 00 02 00 00 eb e0`,
			placement{entry: 18, class: Emulated, rets: []int{24}, props: "calls"}},
		{"Go, before frame pointers were pushed", gO, Options{}, `
			49 3b 66 10 76 13
			48 83 ec 10       # sub $16, %rsp
			48 89 44 24 18    # mov %rax, 24(%rsp): spill to the caller's frame
			e8 00 01 00 00 48 83 c4 10 c3
			e8 00 02 00 00 eb e0`,
			placement{entry: 15, class: Emulated, sp: 16, rets: []int{24}, props: "calls"}},
		{"Go, nothing emulated behind the check: still behind it", gO, args, `
			49 3b 66 10 76 07 48 83 ec 10 31 c0 c3   # sub; xor %eax, %eax
			e8 00 02 00 00 eb ec`,
			placement{entry: 6, class: SingleStepped, rets: []int{12}, props: "calls tail"}},
		{"Go, nosplit", gO, args, `55 48 89 e5 48 8b 00 5d c3`,
			placement{class: Emulated, rets: []int{8}}},
		{"Go, nosplit leaf without a frame", gO, args, `48 ff c0 c3`,
			placement{class: SingleStepped, rets: []int{3}}},
		{"Go, assembly: g comes from thread-local storage", gO, args, `
			64 48 8b 0c 25 f8 ff ff ff    # mov %fs:-8, %rcx
			48 3b 61 10 76 07             # cmp 16(%rcx), %rsp; jbe
			55 48 89 e5 90 5d c3
			e8 00 02 00 00 eb e3`,
			placement{entry: 15, class: Emulated, rets: []int{21}, props: "calls"}},
		{"Go, switch table", gO, args, `55 48 89 e5 48 8d 0d 00 10 00 00 ff 24 c1 5d c3`,
			placement{class: Emulated, rets: []int{15}}},
		{"Go, call from a wrapper left by a jump", gO, args, `48 83 c0 08 e9 00 01 00 00`,
			placement{class: SingleStepped, props: "tail"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			code := unhex(t, test.code)
			p, err := Analyze(elf.EM_X86_64, code, testFunction(code, test.lang), test.opt)
			if err != nil {
				t.Fatal(err)
			}
			checkPlacement(t, p, test.want)
		})
	}
}

func TestNotProbeable(t *testing.T) {
	for _, test := range []struct {
		name string
		arch elf.Machine
		code string
		edit func(*symbolizer.Function)
		opt  Options
		want error
	}{
		{"size unknown", elf.EM_X86_64, "c3", func(f *symbolizer.Function) { f.Size = 0 }, Options{}, ErrNotProbeable},
		{"no code", elf.EM_X86_64, "", nil, Options{}, ErrNotProbeable},
		{"cut instruction", elf.EM_X86_64, "48", nil, Options{}, ErrNotProbeable},
		{"breakpoint already", elf.EM_X86_64, "cc c3", nil, Options{}, ErrNotProbeable},
		{"undecodable", elf.EM_X86_64, "06 c3", nil, Options{}, ErrNotProbeable},
		{"ud2", elf.EM_X86_64, "0f 0b", nil, Options{}, ErrNotProbeable},
		{"hlt", elf.EM_X86_64, "f4", nil, Options{}, ErrNotProbeable},
		{"system call", elf.EM_X86_64, "0f 05 c3", nil, Options{}, ErrNotProbeable},
		{"signal trampoline", elf.EM_X86_64, "48 c7 c0 0f 00 00 00 0f 05", nil, Options{}, ErrNotProbeable},
		{"signal trampoline, a nop early", elf.EM_X86_64, "90 48 c7 c0 0f 00 00 00 0f 05", nil, Options{}, ErrNotProbeable},
		{"by name", elf.EM_X86_64, "c3", func(f *symbolizer.Function) { f.Symbol = "__restore_rt@@X" }, Options{}, ErrNotProbeable},
		{"fragment", elf.EM_X86_64, "53 5b c3", func(f *symbolizer.Function) { f.Fragment = true }, Options{}, ErrNotProbeable},
		{"machine", elf.EM_RISCV, "c3", nil, Options{}, ErrNotProbeable},
		{"return probe on Go", elf.EM_X86_64, "55 5d c3", func(f *symbolizer.Function) { f.Lang = symbolizer.LangGo },
			Options{ReturnMethod: ReturnUretprobe}, ErrUnsafe},
		{"Go with undecodable code", elf.EM_X86_64, "55 74 01 06 06 c3", func(f *symbolizer.Function) { f.Lang = symbolizer.LangGo },
			Options{}, ErrNotProbeable},
		{"arm64, misaligned", elf.EM_AARCH64, "c0035fd6", func(f *symbolizer.Function) { f.Offset++ }, Options{}, ErrNotProbeable},
		{"arm64, less than an instruction", elf.EM_AARCH64, "c003", nil, Options{}, ErrNotProbeable},
		{"arm64, undefined instruction", elf.EM_AARCH64, "00000000", nil, Options{}, ErrNotProbeable},
	} {
		t.Run(test.name, func(t *testing.T) {
			code := unhex(t, test.code)
			fn := testFunction(code, symbolizer.LangC)
			if test.edit != nil {
				test.edit(&fn)
			}
			p, err := Analyze(test.arch, code, fn, test.opt)
			if !errors.Is(err, test.want) || p != nil {
				t.Errorf("got %+v, %v; want %v", p, err, test.want)
			}
			if err != nil && !strings.Contains(err.Error(), fn.Name) {
				t.Errorf("%q does not name the function", err)
			}
		})
	}
}

// The callbacks carry what only the caller knows: the other symbols.
func TestPlaceCallbacks(t *testing.T) {
	// xor %eax, %eax; test %edi, %edi; jne +512; push %rbx; pop; ret
	code := unhex(t, "31 c0 85 ff 0f 85 f6 01 00 00 53 5b c3")
	fn := testFunction(code, symbolizer.LangC)
	fn.Symbol = "f"
	plan := func(opt Options) *Plan {
		t.Helper()
		p, err := Analyze(elf.EM_X86_64, code, fn, opt)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	if p := plan(Options{}); !p.TailJumps || p.Split || p.Entry.Offset != testOffset+4 {
		t.Errorf("without callbacks: %+v", p)
	}
	const target = testAddr + 512
	p := plan(Options{SameFunction: func(a uint64) bool { return a == target }})
	if !p.Split || !slices.Equal(p.Parts, []uint64{target}) {
		t.Errorf("part at %#x not found: %+v", target, p)
	}
	p = plan(Options{OtherEntry: func(a uint64) bool { return a == testAddr+4 }})
	if p.Entry.Offset != testOffset {
		t.Errorf("entry at +%d, though another symbol begins before it", p.Entry.Offset-testOffset)
	}
}

// Clang lets code behind a call that never returns jump to the padding behind
// the function: that is no tail call.
func TestJumpToPadding(t *testing.T) {
	// push %rbx; pop %rbx; ret; call; jmp to the end; call
	code := unhex(t, "53 5b c3 e8 00 01 00 00 eb 05 e8 00 01 00 00")
	fn := testFunction(code, symbolizer.LangC)
	for _, function := range []bool{true, false} {
		p, err := Analyze(elf.EM_X86_64, code, fn, Options{
			OtherEntry: func(addr uint64) bool { return function && addr == fn.Addr+fn.Size },
		})
		if err != nil {
			t.Fatal(err)
		}
		if p.TailJumps != function {
			t.Errorf("a function begins there: %v, tail jumps: %v", function, p.TailJumps)
		}
	}
}

// A function whose only RET is in its cold part still has one.
func TestAddOnlyPart(t *testing.T) {
	code := unhex(t, "53 e8 00 01 00 00 e9 f5 01 00 00")
	cold := unhex(t, "31 c0 5b c3")
	fn := testFunction(code, symbolizer.LangCPP)
	part := symbolizer.Function{Name: "f.cold", Addr: testAddr + 0x200, Offset: testOffset + 0x200, Size: uint64(len(cold)), Fragment: true}
	p, err := Analyze(elf.EM_X86_64, code, fn, Options{Unwinds: true})
	if err != nil {
		t.Fatal(err)
	}
	if !p.AddPart(elf.EM_X86_64, cold, part) {
		t.Error("part not understood")
	}
	if got, want := retOffsets(p), []int{0x200 + 3}; !slices.Equal(got, want) {
		t.Errorf("RET sites %v, want %v", got, want)
	}
}

func TestAddPart(t *testing.T) {
	code := unhex(t, "53 85 ff 0f 84 00 02 00 00 e8 00 01 00 00 5b c3")
	cold := unhex(t, "31 c0 5b c3 e9 00 fd ff ff")
	fn := testFunction(code, symbolizer.LangCPP)
	part := symbolizer.Function{Name: "f.cold", Addr: testAddr + 0x209, Offset: testOffset + 0x209, Size: uint64(len(cold)), Fragment: true}
	p, err := Analyze(elf.EM_X86_64, code, fn, Options{Unwinds: true})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(p.Parts, []uint64{part.Addr}) {
		t.Fatalf("parts %#x, want %#x", p.Parts, part.Addr)
	}
	for range 2 { // adding twice changes nothing
		if !p.AddPart(elf.EM_X86_64, cold, part) {
			t.Error("part not understood")
		}
		if got, want := retOffsets(p), []int{15, 0x209 + 3}; !slices.Equal(got, want) {
			t.Errorf("RET sites %v, want %v", got, want)
		}
	}
	whole := part
	whole.Fragment = false
	if p.AddPart(elf.EM_X86_64, cold, whole) {
		t.Error("a function of its own was added as a part")
	}
	if p.AddPart(elf.EM_X86_64, unhex(t, "06"), symbolizer.Function{Size: 1, Fragment: true}) {
		t.Error("undecodable part accepted")
	}
}

// Functions that return twice, never, or to somewhere else, by name and alias.
func TestOddReturns(t *testing.T) {
	code := unhex(t, "53 e8 00 01 00 00 5b c3")
	for _, test := range []struct {
		symbol  string
		aliases []string
		lang    symbolizer.Lang
		odd     bool
	}{
		{symbol: "vfork", odd: true},
		{symbol: "__sigsetjmp@@GLIBC_2.2.5", odd: true},
		{symbol: "swapcontext", odd: true},
		{symbol: "_Unwind_RaiseException", odd: true},
		{symbol: "__cxa_throw", odd: true},
		{symbol: "_dl_runtime_resolve_xsavec", odd: true},
		{symbol: "_start", odd: true},
		{symbol: "other", aliases: []string{"setjmp"}, odd: true},
		{symbol: "runtime.mcall", lang: symbolizer.LangGo, odd: true},
		{symbol: "memcpy"},
		{symbol: "setjmp_wrapper"},
		{symbol: "setjmp", lang: symbolizer.LangGo},
	} {
		fn := testFunction(code, test.lang)
		fn.Name, fn.Symbol, fn.Aliases = test.symbol, test.symbol, test.aliases
		p, err := Analyze(elf.EM_X86_64, code, fn, Options{})
		if err != nil {
			t.Errorf("%s: %v", test.symbol, err)
			continue
		}
		if odd := len(p.Returns) == 0; odd != test.odd || odd != (len(p.Warnings) > 0) {
			t.Errorf("%s %v: returns %+v, warnings %q", test.symbol, test.aliases, p.Returns, p.Warnings)
		}
	}
}
