package tracer

import (
	"slices"
	"testing"
	"time"

	"github.com/sbxtrace/sbxtrace/trace"
)

// A target that runs one look after another: calls per look of each function.
func TestGovernor(t *testing.T) {
	const ms = time.Millisecond
	for _, tt := range []struct {
		name  string
		cost  []float64 // ns per call
		calls []uint64  // per look of 20 ms
		cpu   time.Duration
		looks int
		want  []trace.FuncID
	}{
		{"a target kept from its work", []float64{1000, 1000, 1000}, []uint64{9000, 8500, 20}, 20 * ms, 1, []trace.FuncID{0, 1}},
		{"quiet", []float64{10_000, 500}, []uint64{2, 100}, 20 * ms, 50, nil},
		{"one hot leaf", []float64{10_000, 500}, []uint64{1800, 100}, 20 * ms, 1, []trace.FuncID{0}},
		{"many cheap calls", []float64{500, 500}, []uint64{30_000, 10}, 20 * ms, 1, []trace.FuncID{0}},
		{"only as many as needed", []float64{1000, 1000, 1000}, []uint64{9000, 5000, 100}, 20 * ms, 1, []trace.FuncID{0, 1}},
		{"a burst on an idle target is let pass", []float64{10_000}, []uint64{20}, 0, 10, nil},
		{"idle, but cost goes on", []float64{10_000}, []uint64{40}, 4 * ms / 10, 30, []trace.FuncID{0}},
		{"slightly too much for long", []float64{1000}, []uint64{2500}, 20 * ms, 20, []trace.FuncID{0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGovernor(10)
			for i, c := range tt.cost {
				g.watch(trace.FuncID(i), 100, c)
			}
			n := make([]uint64, len(tt.cost))
			var got []hot
			for range tt.looks {
				for i := range n {
					n[i] += tt.calls[i]
				}
				got = append(got, g.look(20*ms, tt.cpu, func(id trace.FuncID) uint64 { return n[id] })...)
				for _, h := range got {
					g.forget(h.id)
				}
			}
			if len(got) != len(tt.want) {
				t.Fatalf("took out %v, want %v", got, tt.want)
			}
			for i := range got {
				if got[i].id != tt.want[i] {
					t.Errorf("took out %v, want %v", got, tt.want)
				}
				if want := tt.calls[got[i].id] * 50; got[i].rate != want {
					t.Errorf("rate of %d: %d/s, want %d", got[i].id, got[i].rate, want)
				}
			}
		})
	}
}

// A server that idles and then has a burst of work keeps its functions; one
// that was busy all the time does not get away with it.
func TestGovernorCredit(t *testing.T) {
	const look = 20 * time.Millisecond
	for _, tt := range []struct {
		name string
		idle int // looks before the burst
		want bool
	}{{"after two seconds of rest", 100, false}, {"at once", 0, true}} {
		g := newGovernor(10)
		g.watch(0, 100, 1000)
		n := uint64(0)
		hits := func(trace.FuncID) uint64 { return n }
		for range tt.idle {
			if out := g.look(look, 0, hits); out != nil {
				t.Fatalf("%s: took out %v of a target at rest", tt.name, out)
			}
		}
		n += 12_000 // 12 ms
		if out := g.look(look, look, hits); (out != nil) != tt.want {
			t.Errorf("%s: took out %v", tt.name, out)
		}
	}
}

// Of functions that cost the same the larger one stays.
func TestGovernorKeepsTheLarger(t *testing.T) {
	g := newGovernor(10)
	n := make([]uint64, 4)
	for id, size := range []uint64{40, 3000, 900, 35} {
		g.watch(trace.FuncID(id), size, 750)
	}
	var out []hot
	for looks := 0; out == nil && looks < 10; looks++ {
		for id, calls := range []uint64{1300, 1350, 1300, 1320} {
			n[id] += calls
		}
		out = g.look(20*time.Millisecond, 20*time.Millisecond, func(id trace.FuncID) uint64 { return n[id] })
	}
	var got []trace.FuncID
	for _, h := range out {
		got = append(got, h.id)
	}
	if want := []trace.FuncID{3, 0, 2}; !slices.Equal(got, want) {
		t.Errorf("took out %v, want %v", got, want)
	}
}
