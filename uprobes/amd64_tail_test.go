package uprobes

import (
	"debug/elf"
	"testing"

	"github.com/sbxtrace/sbxtrace/symbolizer"
)

// A case of a switch that ends in a tail call: no branch leads there, so how
// deep the stack is can only be told from the jump through the table.
func TestTailBehindSwitchAMD64(t *testing.T) {
	const prefix = `
		53                      # push %rbx
		48 8d 15 00 10 00 00    # lea table(%rip), %rdx
		48 63 04 ba             # movslq (%rdx,%rdi,4), %rax
		48 01 d0                # add %rdx, %rax
		ff e0                   # jmp *%rax
		5b c3                   # case 0: pop, ret
		31 c0                   # case 1
	`
	for _, tt := range []struct {
		name, code string
		tails      []int
		unseen     bool
	}{
		{"tail call", prefix + `5b e9 00 01 00 00`, []int{22}, false},
		{"jump with the frame: a cold part", prefix + `e9 00 01 00 00 5b c3`, nil, false},
		{"behind a case of its own depth", `
			53 48 8d 15 00 10 00 00 48 63 04 ba 48 01 d0 ff e0
			50                      # push %rax
			48 63 04 ba 48 01 d0 ff e0
			5b e9 00 01 00 00`, nil, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code := unhex(t, tt.code)
			p, err := Analyze(elf.EM_X86_64, code, testFunction(code, symbolizer.LangC), Options{ReturnMethod: ReturnRet})
			if err != nil {
				t.Fatal(err)
			}
			var got []int
			for _, s := range p.Returns {
				if s.Role == RoleTail {
					got = append(got, int(s.Offset)-testOffset)
				}
			}
			if len(got) != len(tt.tails) || len(got) > 0 && got[0] != tt.tails[0] {
				t.Errorf("tail jumps at %v, want %v", got, tt.tails)
			}
			if unseen := p.TailJumps && !p.TailSites; unseen != tt.unseen {
				t.Errorf("tail jumps unseen: %t, want %t", unseen, tt.unseen)
			}
		})
	}
}
