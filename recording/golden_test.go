package recording

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/sbxtrace/sbxtrace/internal/synth"
	"github.com/sbxtrace/sbxtrace/trace"
)

var update = flag.Bool("update", false, "write the listings of the recordings in testdata; with -args new, a recording of the present version too")

// described is a session with everything in it.
var described = Session{
	Tool: "sbxtrace v0.1.0", Command: []string{"sbxtrace", "record", "--pid", "100"}, Host: "example", OS: "linux",
	Kernel: "6.1.0", Arch: "amd64", CPUs: 4, Boot: "11111111-2222-3333-4444-555555555555",
	Monotonic: 1_000_000_000_000, Unix: 1_700_000_000_000_000_000, Level: "stacks",
	Selectors: &Selectors{Functions: []string{"function_*"}, Excludes: []string{"*_99"}},
	Filters:   &Filters{MaxDepth: 20}, Targets: []Process{{PID: 100, Exe: "/usr/bin/service", Args: []string{"service", "-v"}}},
	Modules: []Module{{Path: "/usr/bin/service", BuildID: "0123456789abcdef", Functions: 40}},
}

// example is a small recording with everything in it, of the present version.
func example(t testing.TB, store Store) {
	t.Helper()
	s := synth.New(synth.Options{Seed: 9, Threads: 2, Goroutines: 3, Functions: 20, Args: true, Stacks: true, Trouble: true})
	w, err := NewWriter(store, Options{
		Session: described, Functions: s, SealAfter: 100_000,
		Process: func(pid uint32) Process {
			return Process{Parent: 1, Exe: "/usr/bin/service", BuildID: "0123456789abcdef", Args: []string{"service", fmt.Sprint(pid)}}
		},
		Frame: func(_ uint32, a uint64) Frame {
			return Frame{Text: fmt.Sprintf("f+%#x", a), Func: "f", Module: "/usr/bin/service", Offset: a, File: "service.c", Line: 12}
		},
		Wall: func() int64 { return 1_699_999_000_000_000_000 },
	})
	if err != nil {
		t.Fatal(err)
	}
	p := trace.NewPairer(ignore{}, func(pid uint32, sp uint64) (trace.Region, bool) {
		r, ok := synth.Region(pid, sp)
		w.Region(pid, r)
		return r, ok
	})
	w.Begin(p)
	for i := range 400 {
		e := s.Next()
		p.Event(e)
		w.Event(e)
		if i%50 == 49 {
			w.Tick(s.Now())
		}
		if i == 150 {
			w.Mark(Mark{Time: s.Now(), Kind: MarkTrigger, Text: "call(function_1) > 1ms"})
		}
	}
	p.Finish(s.Now())
	w.Finish(s.Now())
	hist := new(trace.Hist)
	hist.AddN(1000, 3)
	w.Rows([]trace.Row{{Func: 2, Calls: 3, Timed: 3, Total: 3000, Self: 2000, Min: 1000, Max: 1000, Hist: hist, AtLeast: true}}, 1_000_000_000_000, s.Now())
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// list prints everything that a recording says.
func list(t testing.TB, f *File) []byte {
	t.Helper()
	var out bytes.Buffer
	print := func(what string, v any) {
		fmt.Fprintf(&out, "%s %s\n", what, sparse(t, v))
	}
	print("session", f.Session)
	for i := range f.Blocks {
		h := f.Blocks[i].Header
		h.Recording, h.Stored, h.Raw, h.Flags, h.payloadSum = 0, 0, 0, 0, 0
		print("block", h)
		b, err := f.Block(i)
		if err != nil {
			t.Fatal(err)
		}
		print("functions", b.Functions)
		print("processes", b.Processes)
		print("frames", len(b.Frames))
		print("checkpoint", b.Checkpoint)
		items := b.Items()
		for items.Next() {
			switch it := &items.Item; it.Kind {
			case ItemEvent:
				print("event", it.Event)
			case ItemTick:
				print("tick", it.Time)
			case ItemRegion:
				print("region", []any{it.RegionPID, it.Region})
			case ItemMark:
				print("mark", it.Mark)
			case ItemEnd:
				print("end", it.Time)
			}
		}
		if err := items.Err(); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := f.Sums()
	if err != nil {
		t.Fatal(err)
	}
	print("sums", rows)
	return out.Bytes()
}

// sparse is v as JSON without what is zero: fields that later versions add to
// events make no difference to recordings that have none of them.
func sparse(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var tree any
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(&tree); err != nil {
		t.Fatal(err)
	}
	if b, err = json.Marshal(withoutZeros(tree)); err != nil {
		t.Fatal(err)
	}
	return b
}

// withoutZeros leaves out the fields of objects that are zero; lists keep theirs.
func withoutZeros(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name, field := range v {
			switch field := withoutZeros(field); {
			case field == nil, field == json.Number("0"), field == "", field == false:
				delete(v, name)
			default:
				v[name] = field
			}
		}
	case []any:
		for i := range v {
			v[i] = withoutZeros(v[i])
		}
	}
	return v
}

// Recordings of every version of the format stay readable: testdata has one of
// each, with what is in it.
func TestOldRecordings(t *testing.T) {
	newest := filepath.Join("testdata", fmt.Sprintf("v%d.sbx", Version))
	if *update && flag.Arg(0) == "new" {
		f, err := os.Create(newest)
		if err != nil {
			t.Fatal(err)
		}
		example(t, NewFileStore(f))
	}
	paths, err := filepath.Glob("testdata/v*.sbx")
	if err != nil || len(paths) < Version {
		t.Fatalf("%v, %v: one recording of each version", paths, err)
	}
	for _, path := range paths {
		f, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if !f.Indexed || f.Damage.Any() {
			t.Errorf("%s: indexed %v, damage %+v", path, f.Indexed, f.Damage)
		}
		golden := strings.TrimSuffix(path, ".sbx") + ".txt"
		got := list(t, f)
		if *update {
			if err := os.WriteFile(golden, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		sameLines(t, path, got, want)
	}
}

func sameLines(t testing.TB, what string, got, want []byte) {
	t.Helper()
	g, w := bytes.Split(got, []byte("\n")), bytes.Split(want, []byte("\n"))
	for i := range min(len(g), len(w)) {
		if !bytes.Equal(g[i], w[i]) {
			t.Fatalf("%s: line %d\n got %.300s\nwant %.300s", what, i+1, g[i], w[i])
		}
	}
	if len(g) != len(w) {
		t.Fatalf("%s: %d lines, want %d", what, len(g), len(w))
	}
}

// The example recording of the present version is what its maker makes.
func TestExample(t *testing.T) {
	var m memory
	example(t, &m)
	want, err := os.ReadFile(fmt.Sprintf("testdata/v%d.txt", Version))
	if err != nil {
		t.Fatal(err)
	}
	sameLines(t, "example", list(t, m.file(t)), want)
}

// The description of the format suffices: a reader that was made by it alone
// reads the same.
func TestPythonReader(t *testing.T) {
	for _, tool := range []string{"python3", "zstd"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s, which is not installed", tool)
		}
	}
	path := fmt.Sprintf("testdata/v%d.sbx", Version)
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command("python3", "../docs/examples/read_recording.py", path)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 1<<20)
	if !lines.Scan() || !strings.Contains(lines.Text(), described.Boot) {
		t.Fatalf("the first line is not the session: %.200s", lines.Text())
	}
	names := map[trace.FuncID]string{}
	for i := range f.Blocks {
		b, err := f.Block(i)
		if err != nil {
			t.Fatal(err)
		}
		clear(names)
		for _, fn := range b.Functions {
			names[fn.ID] = fn.Name
		}
		for items := b.Items(); items.Next(); {
			if items.Item.Kind != ItemEvent {
				continue
			}
			if !lines.Scan() {
				t.Fatal("the reader ends too early")
			}
			got, want := generic(t, lines.Bytes()), generic(t, asPython(t, &items.Item.Event, names))
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("\n got %v\nwant %v", got, want)
			}
		}
	}
	if lines.Scan() {
		t.Errorf("one line too many: %s", lines.Text())
	}
}

func generic(t testing.TB, line []byte) map[string]any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(line))
	d.UseNumber()
	var m map[string]any
	if err := d.Decode(&m); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	return m
}

// asPython is an event as the example prints it.
func asPython(t testing.TB, e *trace.Event, names map[trace.FuncID]string) []byte {
	t.Helper()
	m := map[string]any{
		"time": e.Time, "kind": e.Kind, "flags": e.Flags, "pid": e.PID, "tid": e.TID, "goid": e.GoID, "func": e.Func,
	}
	if n, ok := names[e.Func]; ok {
		m["name"] = n
	}
	switch e.Kind {
	case trace.KindEntry, trace.KindExit:
		m["sp"] = e.SP
	case trace.KindFork:
		m["child"], m["child_pid"], m["comm"] = e.Child, e.ChildPID, e.Comm
	case trace.KindExec, trace.KindComm:
		m["comm"] = e.Comm
	case trace.KindLost:
		m["count"], m["cpu"], m["cause"] = e.Count, e.CPU, e.Cause
	case trace.KindDetached:
		m["count"] = e.Count
	case trace.KindSample:
		m["comm"], m["count"], m["cpu"], m["stack_id"] = e.Comm, e.Count, e.CPU, e.StackID
		m["waker"], m["weight"], m["cut"] = e.Waker, e.Weight, e.Cut
	}
	if e.Flags&trace.FlagReturn != 0 {
		m["ret"] = e.Ret
	}
	if len(e.Args) > 0 {
		m["args"] = e.Args
	}
	if len(e.Stack) > 0 {
		m["stack"] = e.Stack
	}
	if e.Status != 0 {
		m["status"] = e.Status
	}
	if len(e.Kernel) > 0 {
		m["kernel"] = e.Kernel
	}
	if len(e.Texts) > 0 {
		m["texts"] = e.Texts
	}
	if e.Unread != 0 {
		m["unread"] = e.Unread
	}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
