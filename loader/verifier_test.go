package loader

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/sbxtrace/sbxtrace/bpf"
)

// What the verifier does with a program depends on the kernel: older ones see
// less often that they have been somewhere before. It gives up after a million
// instructions, and long before that loading takes seconds.
func TestVerifierCost(t *testing.T) {
	needRoot(t)
	const most = 250_000
	for name, c := range map[string]Config{
		"count":           {},
		"latency":         {Level: LevelLatency},
		"calls":           {Level: LevelCalls, Comm: "x", TIDs: []uint32{1}, Follow: true, StopOnExec: true},
		"calls filtered":  {Level: LevelCalls, MinDuration: 1, MaxDepth: 3, Sample: 4},
		"stacks":          {Level: LevelStacks, Static: true},
		"args filtered":   {Level: LevelArgs, MinDuration: 1},
		"stacks filtered": {Level: LevelStacks, MaxDepth: 2},
	} {
		for _, namespace := range []bool{false, true} {
			if namespace && name != "calls" {
				continue // it adds the same to all
			}
			t.Run(fmt.Sprintf("%s/namespace=%v", name, namespace), func(t *testing.T) {
				spec, err := bpf.LoadTrace()
				if err != nil {
					t.Fatal(err)
				}
				c.RingBytes, c.MaxFuncs = 1<<16, 16
				s := &Session{cfg: c, stride: 16, cpus: 2}
				if s.multi, err = haveMulti(); err != nil {
					t.Fatal(err)
				}
				if err := s.configure(spec); err != nil {
					t.Fatal(err)
				}
				if namespace { // some other one
					if err := spec.Variables["cfg_pidns_ino"].Set(uint64(4026532999)); err != nil {
						t.Fatal(err)
					}
				}
				coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{LogLevel: ebpf.LogLevelStats}})
				if err != nil {
					t.Fatalf("%+v", err)
				}
				defer coll.Close()
				for name, p := range coll.Programs {
					_, text, ok := strings.Cut(p.VerifierLog, "processed ")
					var n int
					if _, err := fmt.Sscan(text, &n); err != nil || !ok {
						t.Fatalf("%s: log %q: %v", name, p.VerifierLog, err)
					}
					t.Logf("%s: %d instructions", name, n)
					if n > most {
						t.Errorf("%s takes the verifier %d instructions, want %d at most", name, n, most)
					}
				}
			})
		}
	}
}
