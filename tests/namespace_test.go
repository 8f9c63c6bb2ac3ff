package tests

import (
	"testing"

	"github.com/sbxtrace/sbxtrace/internal/targets"
)

// inPIDNamespace starts a command as the first process of a pid namespace.
var inPIDNamespace = []string{"unshare", "--pid", "--fork", "--mount-proc"}

// sbxtrace itself runs in a pid namespace, as in a container: ids are those
// that it sees there.
func TestPIDNamespace(t *testing.T) {
	needTool(t, inPIDNamespace[0])
	for _, target := range []string{"calls", "forker", "gocalls"} {
		for _, level := range []string{"calls", "latency"} {
			t.Run(target+"/"+level, func(t *testing.T) {
				t.Parallel()
				needRoot(t)
				path := own(t, targets.Build(t, target))
				s := sbxtraceBy(t, inPIDNamespace, "run", "--level", level, "--", path, "--auto")
				r := s.wait()
				truth := truthOf(t, s.stdout.String())
				if level == "latency" {
					report(t, "summary", differences("calls", truth.Counts, r.rowCounts()))
					return
				}
				situation{noDepth: true}.compare(t, r, truth)
				for _, c := range r.calls {
					if c.PID <= 1 || c.PID > 1000 { // the first ones of the namespace
						t.Fatalf("%s in process %d, which is no id in the namespace", c.Func, c.PID)
					}
				}
			})
		}
	}
}

// The target runs in a pid namespace below sbxtrace's: it has ids in both.
func TestNestedPIDNamespace(t *testing.T) {
	needTool(t, inPIDNamespace[0])
	for label, outer := range map[string][]string{"initial": nil, "own": inPIDNamespace} {
		t.Run(label, func(t *testing.T) {
			t.Parallel()
			needRoot(t)
			path := own(t, targets.Build(t, "forker"))
			args := append([]string{"--func", "child_*", "--func", "exec_*", "--func", "spawn_child", "--", inPIDNamespace[0]}, inPIDNamespace[1:]...)
			s := sbxtraceBy(t, outer, "run", append(args, path, "--auto")...)
			r := s.wait()
			truth := truthOf(t, s.stdout.String())
			for name := range truth.Counts {
				if _, traced := r.rows[name]; !traced {
					delete(truth.Counts, name)
				}
			}
			if len(truth.Counts) < 4 {
				t.Errorf("only %v were traced", r.counts())
			}
			report(t, "calls", differences("calls", truth.Counts, r.counts()))
		})
	}
}
