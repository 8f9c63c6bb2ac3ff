package replay

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/sbxtrace/sbxtrace/internal/synth"
	"github.com/sbxtrace/sbxtrace/recording"
	"github.com/sbxtrace/sbxtrace/trace"
)

// large makes a recording of some ten million calls, once.
func large(b *testing.B) string {
	b.Helper()
	path := filepath.Join(os.TempDir(), "sbxtrace-bench-10M.sbx")
	if info, err := os.Stat(path); err == nil && info.Size() > 1<<20 {
		return path
	}
	out, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	s := synth.New(synth.Options{Seed: 1, Threads: 4})
	w, err := recording.NewWriter(recording.NewFileStore(out), recording.Options{Functions: s})
	if err != nil {
		b.Fatal(err)
	}
	p := trace.NewPairer((*relay)(&Player{quiet: true}), nil)
	w.Begin(p)
	for i := range 20_000_000 {
		e := s.Next()
		p.Event(e)
		w.Event(e)
		if i%10_000 == 0 {
			w.Tick(s.Now())
		}
	}
	p.Finish(s.Now())
	w.Finish(s.Now())
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	return path
}

// BenchmarkOpen opens a recording of ten million calls and goes to its
// beginning: what it takes until something can be shown.
func BenchmarkOpen(b *testing.B) {
	path := large(b)
	for b.Loop() {
		f, err := recording.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		p := NewPlayer(f, nil)
		for range 1000 {
			if _, err := p.Step(); err != nil {
				b.Fatal(err)
			}
		}
		f.Close()
	}
}

// BenchmarkSeek goes to moments anywhere in a recording of ten million calls.
func BenchmarkSeek(b *testing.B) {
	f, err := recording.Open(large(b))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	first, last := f.Span()
	p := NewPlayer(f, nil)
	i := uint64(0)
	for b.Loop() {
		i += 7919
		if err := p.Seek(first + i*104729%(last-first)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPlay plays ten million calls.
func BenchmarkPlay(b *testing.B) {
	f, err := recording.Open(large(b))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	for b.Loop() {
		if _, err := Run(f, nil, Options{}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(20*float64(b.N)/b.Elapsed().Seconds(), "Mevents/s")
}
