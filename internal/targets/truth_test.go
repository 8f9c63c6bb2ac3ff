package targets

import (
	"os/exec"
	"reflect"
	"testing"
	"time"
)

func TestTruthCompare(t *testing.T) {
	truth := Truth{
		Counts:  counts{"a": 2, "b": 5},
		Returns: counts{"b": 5},
		Tree:    []Edge{{"", "a", 2}, {"a", "b", 4}, {"", "b", 1}},
	}
	for _, test := range []struct {
		name string
		got  []string
		want []string
	}{
		{"equal", truth.Compare(counts{"a": 2, "b": 5, "unlisted": 9}), nil},
		{"more and less", truth.Compare(counts{"a": 3}), []string{"a: 3 calls, want 2", "b: 0 calls, want 5"}},
		{"returns", truth.CompareReturns(counts{"b": 5}), nil},
		{"a return too many", truth.CompareReturns(counts{"a": 1, "b": 5}), []string{"a: 1 returns, want 0"}},
		{"edges", truth.CompareEdges(map[[2]string]uint64{{"main", "a"}: 2, {"a", "b"}: 4, {"main", "b"}: 1, {"b", "unlisted"}: 7}), nil},
		{
			"other edges", truth.CompareEdges(map[[2]string]uint64{{"", "a"}: 2, {"b", "b"}: 4, {"", "b"}: 1}),
			[]string{"a → b: 0 calls, want 4", "b → b: 4 calls, want 0"},
		},
	} {
		if !reflect.DeepEqual(test.got, test.want) {
			t.Errorf("%s: %q, want %q", test.name, test.got, test.want)
		}
	}
	if names := truth.Functions(); !reflect.DeepEqual(names, []string{"a", "b"}) {
		t.Errorf("functions %v", names)
	}
	if open := truth.Unfinished(); !reflect.DeepEqual(open, counts{"a": 2}) {
		t.Errorf("unfinished %v", open)
	}
}

// TestProcessEnds checks that a target is gone when its test is over.
func TestProcessEnds(t *testing.T) {
	path := Build(t, "hot")
	var p *Process
	t.Run("test", func(t *testing.T) {
		p = Start(t, path)
		p.Ready()
		p.Go()
	})
	if p.Alive() {
		t.Error("the target outlived its test")
	}
}

// TestEndOfInput checks that a target does not outlive whoever started it.
func TestEndOfInput(t *testing.T) {
	for _, name := range []string{"calls", "gocalls", "rustcalls"} {
		t.Run(name, func(t *testing.T) {
			ended := make(chan error, 1)
			cmd := exec.Command(Build(t, name)) // its stdin is empty
			go func() { ended <- cmd.Run() }()
			select {
			case err := <-ended:
				if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 3 {
					t.Errorf("ended with %v, want status 3", err)
				}
			case <-time.After(stuck):
				t.Error("did not end")
			}
		})
	}
}
