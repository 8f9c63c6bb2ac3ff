package profiler

import (
	"strconv"
	"strings"

	"github.com/sbxtrace/sbxtrace/loader"
	"github.com/sbxtrace/sbxtrace/symbolizer"
)

// goLayout is where the runtime of a Go program keeps its goroutines:
// runtime/runtime2.go of the releases. runtime.g is stack (2 words), two stack
// guards, _panic, _defer, m, sched; a gobuf lost its ret with Go 1.25, which
// moved what follows it in runtime.g and runtime.m; runtime.g got syscallbp with
// Go 1.23.
func goLayout(bin *symbolizer.Binary) loader.GoLayout {
	l := loader.GoLayout{GoID: 152, M: 48, CurG: 192, SchedBP: 104, TLS: bin.GoTLS()}
	switch minor := goMinor(bin.GoVersion); {
	case minor == 0, minor >= 25:
		l.CurG, l.SchedBP = 184, 96
	case minor >= 23:
		l.GoID = 160
	}
	return l
}

// goMinor is 26 for "go1.26.8", 0 for what is no release.
func goMinor(release string) int {
	rest, ok := strings.CutPrefix(release, "go1.")
	if !ok {
		return 0
	}
	digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
	n, err := strconv.Atoi(rest[:digits])
	if err != nil {
		return 0
	}
	return n
}
