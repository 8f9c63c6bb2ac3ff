package profiler

import (
	"os"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/sbxtrace/sbxtrace/loader"
	"github.com/sbxtrace/sbxtrace/symbolizer"
)

// golang is what is known of a process that runs Go.
type golang struct {
	runtime symbolizer.GoRuntime
	memory  *os.File // nil if it cannot be read
	labels  map[uint64]knownLabels
}

// knownLabels are labels that were read from an address.
type knownLabels struct {
	labels []symbolizer.GoLabel
	read   time.Time
}

// goLayout is where the runtime of a Go program keeps its goroutines.
func goLayout(bin *symbolizer.Binary) (symbolizer.GoRuntime, loader.GoLayout) {
	r, ok := symbolizer.GoRuntimeOf(bin.GoVersion)
	if !ok {
		// Up to Go 1.17; or the version is not in the file, as in plug-ins.
		r, _ = symbolizer.GoRuntimeOf("devel")
		if bin.GoVersion != "" {
			r, _ = symbolizer.GoRuntimeOf("go1.18")
		}
		r.Labels = 0
	}
	return r, loader.GoLayout{GoID: r.GoID, M: r.M, CurG: r.CurG, SchedBP: r.SchedBP, Labels: r.Labels, TLS: bin.GoTLS()}
}

// openGo makes the labels of a process's goroutines readable.
func (proc *process) openGo(r symbolizer.GoRuntime) {
	if proc.golang != nil {
		return
	}
	proc.golang = &golang{runtime: r, labels: make(map[uint64]knownLabels)}
	proc.golang.memory, _ = symbolizer.OpenMemory(int(proc.pid)) // without it there are no labels
}

// Labels at an address are read again after a while: the address may be that of
// others then.
const (
	labelsHold = 200 * time.Millisecond
	maxLabels  = 1 << 14
)

// goLabels returns the labels at an address of a process.
func (proc *process) goLabels(addr uint64) []symbolizer.GoLabel {
	if proc == nil || proc.golang == nil || proc.golang.memory == nil || addr == 0 {
		return nil
	}
	g := proc.golang
	known, ok := g.labels[addr]
	if ok && time.Since(known.read) < labelsHold {
		return known.labels
	}
	labels, err := g.runtime.ReadLabels(g.memory, addr)
	if err != nil {
		return known.labels // the process may have ended
	}
	// What a collected object has left behind is no text.
	labels = slices.DeleteFunc(labels, func(l symbolizer.GoLabel) bool { return l.Key == "" || !isText(l.Key) || !isText(l.Value) })
	if len(g.labels) >= maxLabels {
		clear(g.labels)
	}
	g.labels[addr] = knownLabels{labels, time.Now()}
	return labels
}

func isText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}
