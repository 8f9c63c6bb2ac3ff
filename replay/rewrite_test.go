package replay

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sbxtrace/sbxtrace/internal/synth"
	"github.com/sbxtrace/sbxtrace/recording"
	"github.com/sbxtrace/sbxtrace/trace"
)

// rewritten is the recording that write makes.
func rewritten(t testing.TB, write func(recording.Store) error) *recording.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "new.sbx")
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := write(recording.NewFileStore(out)); err != nil {
		t.Fatal(err)
	}
	f, err := recording.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if c := Verify(f); len(c.Wrong) > 0 {
		t.Fatalf("the new recording is wrong: %v", c.Wrong)
	}
	return f
}

func TestVerify(t *testing.T) {
	for name, o := range streams {
		t.Run(name, func(t *testing.T) {
			_, f := live(t, o, 50_000)
			c := Verify(f)
			if len(c.Wrong) > 0 {
				t.Errorf("%v", c.Wrong)
			}
			if c.Events != 50_000 || c.Blocks != len(f.Blocks) || c.Blocks < 5 {
				t.Errorf("%+v", c)
			}
		})
	}
}

// What Cut leaves is what a replay of that part prints.
func TestCut(t *testing.T) {
	for name, o := range streams {
		t.Run(name, func(t *testing.T) {
			_, f := live(t, o, 50_000)
			first, last := f.Span()
			part := Options{From: first + (last-first)/4, To: first + (last-first)/2}
			cut := rewritten(t, func(s recording.Store) error { return Cut(f, s, part, Filter{}) })
			want, got := replayed(t, f, part), replayed(t, cut, Options{})
			same(t, "tree", got.tree.Bytes(), want.tree.Bytes())
			same(t, "JSON", got.json.Bytes(), want.json.Bytes())
		})
	}
}

// Functions that are filtered out are as if they had not been traced.
func TestFilter(t *testing.T) {
	for name, o := range streams {
		t.Run(name, func(t *testing.T) {
			keep := func(id trace.FuncID) bool { return id%3 == 0 }
			filter := Filter{Func: func(f *trace.Func) bool { return keep(f.ID) }}
			_, f := live(t, o, 50_000)
			cut := rewritten(t, func(s recording.Store) error { return Cut(f, s, Options{}, filter) })

			want := leaves{to: ^uint64(0)}
			p := trace.NewPairer(&want, synth.Region)
			for s, i := synth.New(o), 0; i < 50_000; i++ {
				e := s.Next()
				switch e.Kind {
				case trace.KindEntry, trace.KindExit, trace.KindUSDT, trace.KindDetached:
					if !keep(e.Func) {
						continue
					}
				}
				p.Event(e)
			}
			got := leaves{to: ^uint64(0)}
			if _, err := Run(cut, &got, Options{}); err != nil {
				t.Fatal(err)
			}
			if len(got.calls) == 0 || strings.Join(got.calls, "\n") != strings.Join(want.calls, "\n") {
				t.Errorf("%d calls, want %d", len(got.calls), len(want.calls))
			}
		})
	}
}

func TestFilterThread(t *testing.T) {
	_, f := live(t, streams["threads"], 50_000)
	p := NewPlayer(f, nil)
	p.SetFilter(Filter{Thread: func(t Thread) bool { return t.TID == 101 }})
	s := &threads{seen: map[uint32]int{}}
	p.SetSink(s)
	first, last := f.Span()
	if err := p.Run(Options{From: first + (last-first)/2}); err != nil {
		t.Fatal(err)
	}
	if len(s.seen) != 1 || s.seen[101] == 0 {
		t.Errorf("calls by thread: %v", s.seen)
	}
}

type threads struct{ seen map[uint32]int }

func (s *threads) Enter(l *trace.Lane, _ *trace.Call) { s.seen[l.TID]++ }
func (s *threads) Leave(*trace.Lane, *trace.Call)     {}
func (s *threads) Event(*trace.Event)                 {}
func (s *threads) Tick(uint64)                        {}

// Recordings of two halves of the functions, merged, are that of all.
func TestMerge(t *testing.T) {
	for _, name := range []string{"threads", "goroutines", "stacks"} {
		t.Run(name, func(t *testing.T) {
			_, f := live(t, streams[name], 50_000)
			half := func(odd trace.FuncID) *recording.File {
				filter := Filter{Func: func(f *trace.Func) bool { return f.ID%2 == odd }}
				return rewritten(t, func(s recording.Store) error { return Cut(f, s, Options{}, filter) })
			}
			halves := []*recording.File{half(0), half(1)}
			merged := rewritten(t, func(s recording.Store) error { return Merge(halves, s) })
			want, got := replayed(t, f, Options{}), replayed(t, merged, Options{})
			same(t, "tree", got.tree.Bytes(), want.tree.Bytes())
			same(t, "JSON", got.json.Bytes(), want.json.Bytes())
		})
	}
}

func TestMergeOtherBoot(t *testing.T) {
	_, f := live(t, streams["threads"], 1000)
	other := *f
	other.Session.Boot = "another"
	store := &nowhere{}
	if err := Merge([]*recording.File{f, &other}, store); !errors.Is(err, ErrBoots) || !store.closed {
		t.Errorf("%v, closed %v", err, store.closed)
	}
}

// nowhere is a store that keeps nothing.
type nowhere struct{ closed bool }

func (s *nowhere) Append(*recording.Header, []byte) error { return nil }
func (s *nowhere) Close() error                           { s.closed = true; return nil }

// An anonymized recording has the same shape and no name in it.
func TestAnonymize(t *testing.T) {
	path := "../recording/testdata/v1.sbx"
	f, err := recording.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	anon := rewritten(t, func(s recording.Store) error { return Anonymize(f, s, AnonymizeOptions{}) })
	secrets := []string{"function_", "service", "0123456789abcdef", "worker", "named-", "example", "6.1.0", "11111111"}
	check := func(what string, text []byte) {
		for _, s := range secrets {
			if bytes.Contains(text, []byte(s)) {
				t.Errorf("%s: %q is in it", what, s)
			}
		}
	}
	for i := range anon.Blocks {
		raw, err := anon.Payload(i)
		if err != nil {
			t.Fatal(err)
		}
		check("block", raw)
		if anon.Blocks[i].Header.Wall != 0 {
			t.Error("the date is in it")
		}
		b, err := anon.Block(i)
		if err != nil {
			t.Fatal(err)
		}
		for items := b.Items(); items.Next(); {
			if e := &items.Item.Event; items.Item.Kind == recording.ItemEvent && (len(e.Args) > 0 || e.Ret != 0) {
				t.Fatalf("arguments: %+v", e)
			}
		}
	}
	session, err := os.ReadFile(path)
	if err != nil || len(session) == 0 {
		t.Fatal(err)
	}
	if anon.Session.Host != "" || anon.Session.Command != nil || anon.Session.Targets != nil {
		t.Errorf("session: %+v", anon.Session)
	}
	was, is := leaves{to: ^uint64(0)}, leaves{to: ^uint64(0)}
	if _, err := Run(f, &was, Options{}); err != nil {
		t.Fatal(err)
	}
	if _, err := Run(anon, &is, Options{}); err != nil {
		t.Fatal(err)
	}
	if len(is.calls) != len(was.calls) || len(is.calls) == 0 {
		t.Errorf("%d calls, %d before", len(is.calls), len(was.calls))
	}
	kept := rewritten(t, func(s recording.Store) error { return Anonymize(f, s, AnonymizeOptions{KeepFunctions: true}) })
	b, err := kept.Block(0)
	if err != nil || !strings.HasPrefix(b.Functions[0].Name, "function_") || strings.Contains(b.Functions[0].Path, "/") {
		t.Errorf("%v, %+v", err, b.Functions[0])
	}
}

// A damaged recording is repaired as far as it goes.
func TestRepair(t *testing.T) {
	_, f := live(t, streams["threads"], 50_000)
	data := contents(t, f)
	bad := f.Blocks[2]
	data[bad.Offset+200] ^= 1
	damaged, err := recording.NewFile(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	if c := Verify(damaged); len(c.Wrong) != 1 {
		t.Errorf("damage found: %v", c.Wrong)
	}
	path := filepath.Join(t.TempDir(), "new.sbx")
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	lost, err := recording.Repair(damaged, recording.NewFileStore(out))
	if err != nil {
		t.Fatal(err)
	}
	if lost.Blocks != 1 || lost.Events != uint64(bad.Header.Events) || len(lost.Errs) != 1 {
		t.Errorf("lost: %+v", lost)
	}
	fixed, err := recording.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer fixed.Close()
	if len(fixed.Blocks) != len(f.Blocks)-1 || fixed.Damage.Missing != 1 || !fixed.Indexed {
		t.Errorf("%d blocks of %d, %+v", len(fixed.Blocks), len(f.Blocks), fixed.Damage)
	}
	replayed(t, fixed, Options{}) // every call is left, across the gap too
}

// contents are the bytes of a recording.
func contents(t testing.TB, f *recording.File) []byte {
	t.Helper()
	data := make([]byte, f.Size())
	if _, err := f.ReadAt(data, 0); err != nil {
		t.Fatal(err)
	}
	return data
}
