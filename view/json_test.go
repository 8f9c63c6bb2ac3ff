package view

import (
	"bytes"
	"testing"

	"github.com/sbxtrace/sbxtrace/trace"
)

// tee feeds several sinks.
type tee []trace.Sink

func (t tee) Enter(l *trace.Lane, c *trace.Call) {
	for _, s := range t {
		s.Enter(l, c)
	}
}

func (t tee) Leave(l *trace.Lane, c *trace.Call) {
	for _, s := range t {
		s.Leave(l, c)
	}
}

func (t tee) Event(e *trace.Event) {
	for _, s := range t {
		s.Event(e)
	}
}

func (t tee) Tick(now uint64) {
	for _, s := range t {
		s.Tick(now)
	}
}

func renderJSON(t *testing.T, act func(*stage), opt JSONOptions) []byte {
	t.Helper()
	var out bytes.Buffer
	j, stats := NewJSON(&out, program, opt), trace.NewStats()
	s := newStage(tee{j, stats})
	act(s)
	s.finish()
	totals := stats.Totals()
	totals.Orphans = s.p.Orphans
	j.Summary(stats.Rows(program), &totals)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestJSON(t *testing.T) {
	for _, sc := range scenes {
		t.Run(sc.name, func(t *testing.T) {
			golden(t, "json-"+sc.name+".json", renderJSON(t, sc.act, JSONOptions{Entries: true, Frame: frame}))
		})
	}
}
