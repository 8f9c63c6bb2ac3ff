package tracer

import (
	"github.com/sbxtrace/sbxtrace/loader"
	"github.com/sbxtrace/sbxtrace/trace"
)

// Rows reads what levels count and latency have gathered in the kernel: one
// row per function that was called.
func (t *Tracer) Rows() ([]trace.Row, error) {
	var latencies map[trace.FuncID]*loader.Latency
	if t.opt.Level == loader.LevelLatency {
		var err error
		if latencies, err = t.loader.Latencies(); err != nil {
			return nil, err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var rows []trace.Row
	for i := range t.funcs.len() {
		id := trace.FuncID(i)
		if t.internal[id] {
			continue
		}
		r := trace.Row{Func: id, Calls: t.loader.Hits(id), AtLeast: t.gone[id]}
		if l := latencies[id]; l != nil {
			r.Timed, r.Total, r.Self, r.Min, r.Max = l.Returns, l.Total, l.Self, l.Min, l.Max
			r.Hist = trace.HistFromKernel(l.Buckets)
		}
		if r.Calls > 0 {
			rows = append(rows, r)
		}
	}
	return trace.JoinStatic(rows, &t.funcs), nil
}
