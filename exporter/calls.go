package exporter

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/sbxtrace/sbxtrace/trace"
	"github.com/sbxtrace/sbxtrace/view"
)

// Formats of calls, beside those of profiles.
const (
	FormatChrome   Format = "chrome"   // Chrome's trace event format, JSON
	FormatPerfetto Format = "perfetto" // Perfetto's protobuf packets
	FormatParquet  Format = "parquet"  // a row per call, in typed columns
	FormatCSV      Format = "csv"      // a row per call
	FormatOTLP     Format = "otlp"     // OpenTelemetry spans, as lines of OTLP/JSON
)

// CallFormats lists the formats of calls: those of profiles, which sum calls up
// by stack, and those that have each call.
var CallFormats = append(append([]Format(nil), Formats...), FormatChrome, FormatPerfetto, FormatParquet, FormatCSV, FormatOTLP)

// Calls consumes a stream of calls and writes it in some format. What it keeps
// in memory is bounded by the calls that are open, not by the length of the
// stream. It is not safe for concurrent use.
type Calls interface {
	trace.Sink
	// Err is the first error of writing. After one, nothing more is written.
	Err() error
	// Close writes what is still to be written and returns Err. It does not
	// close the writer.
	Close() error
}

// CallOptions says what is written of a stream of calls.
type CallOptions struct {
	// Options are for the formats of profiles. Their default sample type is
	// self, the time that functions spent themselves.
	Options
	// Wall is Unix time less CLOCK_MONOTONIC in ns; 0 if it is not known.
	Wall int64
	// Process names a process; nil, or an empty name: it is not known.
	Process func(pid uint32) string
	// Frame names addresses of stacks, in JSON lines; nil: hexadecimal.
	Frame view.Frame
	// Seed makes the ids of OTLP spans: equal streams with equal seeds have
	// equal ids.
	Seed uint64
	// Send takes batches of spans as an ExportTraceServiceRequest in
	// protobuf, instead of the writer; see [OTLPSender].
	Send func(batch []byte) error
}

// NewCalls returns a consumer of calls that writes to w. Names come from fns.
func NewCalls(w io.Writer, fns trace.Functions, format Format, opt CallOptions) (Calls, error) {
	switch format {
	case FormatChrome:
		return newChrome(w, fns, opt), nil
	case FormatPerfetto:
		return newPerfetto(w, fns, opt), nil
	case FormatParquet:
		return newParquet(w, fns, opt), nil
	case FormatCSV:
		return newCSV(w, fns), nil
	case FormatOTLP:
		return newOTLP(w, fns, opt), nil
	case FormatJSON:
		return view.NewJSON(w, fns, view.JSONOptions{Frame: opt.Frame}), nil
	case FormatPprof, FormatFolded, FormatHTML, FormatSVG, FormatText:
		return newProfileWriter(w, fns, format, opt), nil
	}
	return nil, fmt.Errorf("%w %q", ErrFormat, string(format))
}

// callOutput collects bytes for large writes and keeps the first error.
type callOutput struct {
	w   io.Writer
	buf []byte
	err error
}

const callBuffer = 64 << 10

func (o *callOutput) drain() {
	if o.err == nil && len(o.buf) > 0 {
		if _, err := o.w.Write(o.buf); err != nil {
			o.err = fmt.Errorf("write calls: %w", err)
		}
	}
	o.buf = o.buf[:0]
}

func (o *callOutput) spill() {
	if len(o.buf) >= callBuffer {
		o.drain()
	}
}

// Err is the first error of writing.
func (o *callOutput) Err() error { return o.err }

// names are functions as the formats have them.
type names struct {
	fns trace.Functions
}

// of describes a function, also one that the stream's source does not know. Its
// texts are UTF-8: readers of most formats refuse anything else.
func (n names) of(id trace.FuncID) trace.Func {
	if f := n.fns.Func(id); f != nil {
		out := *f
		out.Name, out.Module, out.Path, out.File = toUTF8(f.Name), toUTF8(f.Module), toUTF8(f.Path), toUTF8(f.File)
		return out
	}
	return trace.Func{ID: id, Name: fmt.Sprintf("func#%d", id)}
}

// module names the file of a function, also when it is the main executable.
func module(f *trace.Func) string {
	if f.Module == "" && f.Path != "" {
		return path.Base(f.Path)
	}
	return f.Module
}

// laneKey tells lanes apart: a goroutine is one wherever it runs.
type laneKey struct {
	pid, tid uint32
	goid     uint64
}

func keyOf(l *trace.Lane) laneKey {
	k := laneKey{pid: l.PID, goid: l.GoID}
	if k.goid == 0 {
		k.tid = l.TID
	}
	return k
}

func keyOfEvent(e *trace.Event) laneKey {
	k := laneKey{pid: e.PID, goid: e.GoID}
	if k.goid == 0 {
		k.tid = e.TID
	}
	return k
}

// maxLanes bounds the lanes that are remembered as named: a program can have
// millions of goroutines. Beyond, all are named again.
const maxLanes = 1 << 20

// openCalls keeps a value for each call that is open.
type openCalls[T any] struct {
	lanes map[laneKey][]openCall[T]
}

type openCall[T any] struct {
	start uint64
	fn    trace.FuncID
	depth int32
	value T
}

func newOpenCalls[T any]() openCalls[T] {
	return openCalls[T]{lanes: make(map[laneKey][]openCall[T])}
}

// enter keeps what make returns for c; up is the value of its caller, nil
// without one.
func (o *openCalls[T]) enter(l *trace.Lane, c *trace.Call, make func(up *T) T) T {
	k := keyOf(l)
	open := o.lanes[k]
	var up *T
	// The caller is the last one, but for coroutines and signal handlers.
	for i := len(open) - 1; i >= 0 && c.Depth > 0; i-- {
		if open[i].depth == c.Depth-1 && open[i].fn == c.Parent {
			up = &open[i].value
			break
		}
	}
	v := make(up)
	o.lanes[k] = append(open, openCall[T]{c.Start, c.Func, c.Depth, v})
	return v
}

// leave forgets c and returns what was kept for it; false for a call that was
// not entered, such as one that a process inherited by fork.
func (o *openCalls[T]) leave(l *trace.Lane, c *trace.Call) (T, bool) {
	k := keyOf(l)
	open := o.lanes[k]
	for i := len(open) - 1; i >= 0; i-- {
		if open[i].start == c.Start && open[i].depth == c.Depth && open[i].fn == c.Func {
			v := open[i].value
			if open = append(open[:i], open[i+1:]...); len(open) == 0 {
				delete(o.lanes, k)
			} else {
				o.lanes[k] = open
			}
			return v, true
		}
	}
	var none T
	return none, false
}

// sortedKeys returns the keys of m in order.
func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// toUTF8 replaces bytes that are not UTF-8: protobuf has no other strings.
func toUTF8(s string) string { return strings.ToValidUTF8(s, "\ufffd") }
