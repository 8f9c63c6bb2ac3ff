package recording

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/sbxtrace/sbxtrace/internal/synth"
	"github.com/sbxtrace/sbxtrace/trace"
)

// ringFile records events into a ring on disk; look is called after each block
// with the file as it is then.
func ringFile(t *testing.T, o RingOptions, n int, look func(data []byte, want []trace.Event)) (path string, all []trace.Event) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "ring.sbx")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	s := synth.New(synth.Options{Seed: 13, Threads: 3, Args: true})
	w, err := NewWriter(NewRingStore(f, o), Options{
		Session: Session{Ring: &Ring{Bytes: o.Bytes, Last: o.Last}}, Functions: s,
		SealAfter: 2 * time.Millisecond, BlockBytes: 64 << 10,
	})
	if err != nil {
		t.Fatal(err)
	}
	w.Begin(trace.NewPairer(ignore{}, nil))
	r := rand.New(rand.NewPCG(5, 5))
	for i := range n {
		e := s.Next()
		w.Event(e)
		all = append(all, clone(e))
		if i%97 == 0 {
			w.Tick(s.Now())
		}
		if r.IntN(6000) == 0 && look != nil {
			if err := w.Flush(); err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			look(data, all)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return path, all
}

// The ring stays within its bounds, and is at every moment a recording of the
// newest events, without a gap.
func TestRing(t *testing.T) {
	for name, o := range map[string]RingOptions{
		"bytes": {Bytes: MinRing},
		"time":  {Last: 20 * time.Millisecond},
		"both":  {Bytes: MinRing, Last: 40 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			looks, oldest := 0, 0
			check := func(data []byte, want []trace.Event) {
				looks++
				if o.Bytes > 0 && int64(len(data)) > o.Bytes {
					t.Fatalf("%d bytes, want %d at most", len(data), o.Bytes)
				}
				f := open(t, data)
				if f.Damage.Any() {
					t.Fatalf("damage: %+v", f.Damage)
				}
				got := events(t, f)
				if !reflect.DeepEqual(got, want[len(want)-len(got):]) {
					t.Fatal("not the newest events")
				}
				if len(got) < len(want) {
					oldest++
				}
				if kept := want[len(want)-1].Time - got[0].Time; o.Last > 0 && kept > uint64(o.Last)+uint64(5*time.Millisecond) {
					t.Fatalf("%v are kept", time.Duration(kept))
				}
			}
			path, all := ringFile(t, o, 150_000, check)
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			check(data, all)
			if !open(t, data).Indexed {
				t.Error("no index at the end")
			}
			if looks < 10 || oldest < 5 {
				t.Errorf("looked %d times, %d times something had fallen out", looks, oldest)
			}
			if o.Bytes > 0 && o.Last == 0 && int64(len(data)) < o.Bytes*3/4 {
				t.Errorf("only %d bytes of %d are used", len(data), o.Bytes)
			}
		})
	}
}

// A writer that is killed in the middle of a block leaves the others readable.
func TestRingTorn(t *testing.T) {
	path, _ := ringFile(t, RingOptions{Bytes: MinRing}, 60_000, nil)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data = withoutIndex(t, data)
	whole := open(t, data)
	last := whole.Blocks[len(whole.Blocks)-1]
	torn := bytes.Clone(data)
	clear(torn[last.Offset+headerSize+100 : last.end()])
	f := open(t, torn)
	if !f.Damage.Truncated || len(f.Blocks) != len(whole.Blocks)-1 {
		t.Fatalf("%d blocks of %d, %+v", len(f.Blocks), len(whole.Blocks), f.Damage)
	}
	events(t, f)
}

func TestRingTooSmall(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "ring.sbx"))
	if err != nil {
		t.Fatal(err)
	}
	s := NewRingStore(f, RingOptions{Bytes: MinRing})
	defer s.Close()
	if err := s.Append(&Header{Kind: BlockEvents}, make([]byte, MinRing)); err == nil {
		t.Error("a block as large as the ring is taken")
	}
}

func TestMemoryRing(t *testing.T) {
	m := NewMemory(RingOptions{Bytes: MinRing, Last: 50 * time.Millisecond})
	s := synth.New(synth.Options{Seed: 14})
	w, err := NewWriter(m, Options{Functions: s, SealAfter: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	w.Begin(trace.NewPairer(ignore{}, nil))
	var all []trace.Event
	for i := range 200_000 {
		e := s.Next()
		w.Event(e)
		all = append(all, clone(e))
		if i%100 == 0 {
			w.Tick(s.Now())
		}
	}
	path := filepath.Join(t.TempDir(), "saved.sbx")
	var saved error
	done := make(chan struct{})
	from := s.Now() - uint64(20*time.Millisecond)
	w.Then(func() {
		defer close(done)
		f, err := os.Create(path)
		if err == nil {
			err = m.Save(f, &Session{Trigger: &Trigger{What: "test", Time: s.Now()}}, from)
		}
		saved = err
	})
	<-done
	if saved != nil {
		t.Fatal(saved)
	}
	if m.Size() > MinRing {
		t.Errorf("%d bytes in memory", m.Size())
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := events(t, f)
	if !reflect.DeepEqual(got, all[len(all)-len(got):]) || len(got) == 0 {
		t.Fatalf("%d events that are not the newest", len(got))
	}
	if first := got[0].Time; first > from || first < from-uint64(5*time.Millisecond) {
		t.Errorf("begins %v before what was asked for", time.Duration(from-first))
	}
	if f.Session.Trigger == nil || !f.Indexed || f.Damage.Any() {
		t.Errorf("session %+v, damage %+v", f.Session, f.Damage)
	}
}

// failing is a store that fails from some block on.
type failing struct {
	memory
	after int
}

func (f *failing) Append(h *Header, b []byte) error {
	if f.blocks == f.after {
		return errors.New("no space left on device")
	}
	return f.memory.Append(h, b)
}

// When the store fails the recording ends, and what there is is whole.
func TestStoreFails(t *testing.T) {
	f := &failing{after: 4}
	s := synth.New(synth.Options{Seed: 1})
	w, err := NewWriter(f, Options{Functions: s, SealAfter: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	w.Begin(trace.NewPairer(ignore{}, nil))
	for i := range 50_000 {
		w.Event(s.Next())
		if i%100 == 0 {
			w.Tick(s.Now())
		}
	}
	w.Finish(s.Now())
	if err := w.Close(); err == nil || w.Err() == nil {
		t.Error("no error")
	}
	if got := f.file(t); len(got.Blocks) != 3 || got.Damage.Any() {
		t.Errorf("%d blocks, damage %+v", len(got.Blocks), got.Damage)
	}
}
