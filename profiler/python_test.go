package profiler

import (
	"fmt"
	"testing"

	"github.com/sbxtrace/sbxtrace/symbolizer"
)

// TestPlace: which frames each activation of the interpreter's loop has.
func TestPlace(t *testing.T) {
	for _, c := range []struct {
		evals, runs int
		cut         bool
		placed      string
		above       int
		below       int
	}{
		{0, 0, false, "[]", 0, 0},
		{3, 3, false, "[0 1 2]", 0, 0},
		{3, 2, false, "[-1 0 1]", 0, 0}, // the innermost was just entered
		{2, 3, false, "[1 2]", 1, 0},    // or not recognized
		{0, 2, false, "[]", 2, 0},
		{3, 2, true, "[0 1 -1]", 0, 0}, // the outermost are missing
		{2, 3, true, "[0 1]", 0, 1},
	} {
		placed, above, below := place(c.evals, c.runs, c.cut)
		if fmt.Sprint(placed) != c.placed || above != c.above || below != c.below {
			t.Errorf("%+v: %v, %d above, %d below", c, placed, above, below)
		}
	}
}

func TestPythonRuns(t *testing.T) {
	f := func(code uint64, entry bool) symbolizer.PythonFrame {
		return symbolizer.PythonFrame{Code: code, Entry: entry}
	}
	runs := pythonRuns([]symbolizer.PythonFrame{f(1, false), f(2, true), f(3, true), f(0, true), f(4, false)})
	if got := fmt.Sprint(len(runs), len(runs[0]), len(runs[1]), len(runs[2]), len(runs[3])); got != "4 2 1 1 1" {
		t.Errorf("runs of %s frames", got)
	}
}
