package main

import (
	"bytes"
	"compress/gzip"
	"encoding/csv"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/pprof/profile"
	"github.com/parquet-go/parquet-go"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/sbxtrace/sbxtrace/exporter"
	"github.com/sbxtrace/sbxtrace/internal/synth"
	"github.com/sbxtrace/sbxtrace/recording"
	"github.com/sbxtrace/sbxtrace/replay"
	"github.com/sbxtrace/sbxtrace/trace"
)

// recordSynthetic records n events that are made up, and returns the file.
func recordSynthetic(t testing.TB, n int, o synth.Options) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "calls.sbx")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	s := synth.New(o)
	w, err := recording.NewWriter(recording.NewFileStore(f), recording.Options{
		Session: recording.Session{Tool: "sbxtrace test"}, Functions: s, Wall: func() int64 { return 1_700_000_000_000_000_000 },
		Process: func(pid uint32) recording.Process { return recording.Process{PID: pid, Exe: "/srv/shop"} },
	})
	if err != nil {
		t.Fatal(err)
	}
	p := trace.NewPairer(trace.NewStats(), func(pid uint32, sp uint64) (trace.Region, bool) {
		r, ok := synth.Region(pid, sp)
		w.Region(pid, r)
		return r, ok
	})
	w.Begin(p)
	for i := range n {
		e := s.Next()
		p.Event(e)
		w.Event(e)
		if i%1000 == 999 {
			p.Tick(s.Now())
			w.Tick(s.Now())
		}
	}
	p.Finish(s.Now())
	w.Finish(s.Now())
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return file
}

// recorded counts the calls of a recording and their time.
func recorded(t testing.TB, file string) (calls, self uint64) {
	t.Helper()
	rec, err := recording.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer rec.Close()
	stats := trace.NewStats()
	p := replay.NewPlayer(rec, stats)
	if err := p.Run(replay.Options{}); err != nil {
		t.Fatal(err)
	}
	for _, r := range stats.Rows(p.Names()) {
		self += r.Self
	}
	// Rows count static probes too.
	return stats.Totals().Calls, self
}

// command runs sbxtrace and returns what it prints.
func command(t testing.TB, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if status := run(args, strings.NewReader(""), &stdout, &stderr); status != 0 {
		t.Fatalf("sbxtrace %s: status %d: %s", strings.Join(args, " "), status, stderr.String())
	}
	return stdout.String()
}

// TestExportRecording exports a recording in every format and holds what other
// readers make of it against the recording.
func TestExportRecording(t *testing.T) {
	file := recordSynthetic(t, 60_000, synth.Options{Seed: 5, Threads: 4, Goroutines: 3, Args: true, Trouble: true})
	calls, self := recorded(t, file)
	if calls < 10_000 {
		t.Fatalf("%d calls", calls)
	}
	out := func(ending string) string {
		path := filepath.Join(t.TempDir(), "out"+ending)
		command(t, "export", file, "-o", path)
		return path
	}
	read := func(path string) []byte {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}

	rows, err := parquet.ReadFile[exporter.CallRow](out(".parquet"))
	if err != nil {
		t.Fatal(err)
	}
	var parquetSelf uint64
	for _, r := range rows {
		parquetSelf += r.Self
	}
	if uint64(len(rows)) != calls || parquetSelf != self {
		t.Errorf("Parquet has %d calls of %d ns, want %d of %d", len(rows), parquetSelf, calls, self)
	}

	records, err := csv.NewReader(bytes.NewReader(read(out(".csv")))).ReadAll()
	if err != nil || uint64(len(records)) != calls+1 {
		t.Errorf("CSV has %d records, %v, want %d", len(records), err, calls+1)
	}

	var chrome struct {
		TraceEvents []struct{ Ph string }
	}
	if err := json.Unmarshal(read(out(".trace.json")), &chrome); err != nil {
		t.Fatal(err)
	}
	complete := uint64(0)
	for _, e := range chrome.TraceEvents {
		if e.Ph == "X" {
			complete++
		}
	}
	if complete != calls {
		t.Errorf("Chrome has %d calls, want %d", complete, calls)
	}

	p, err := profile.ParseData(read(out(".pb.gz")))
	if err != nil {
		t.Fatal(err)
	}
	var sums [3]uint64
	for _, s := range p.Sample {
		for i := range sums {
			sums[i] += uint64(s.Value[i])
		}
	}
	if sums[0] != calls || sums[2] != self {
		t.Errorf("pprof has %d calls of %d ns, want %d of %d", sums[0], sums[2], calls, self)
	}
	if lines := bytes.Count(read(out(".json")), []byte(`{"type":"call",`)); uint64(lines) != calls {
		t.Errorf("JSON lines have %d calls, want %d", lines, calls)
	}
	for _, ending := range []string{".perfetto-trace", ".otlp", ".html", ".svg", ".folded", ".txt"} {
		if len(read(out(ending))) == 0 {
			t.Errorf("%s is empty", ending)
		}
	}
	if report := command(t, "report", file, "--sample-type", "calls", "--limit", "3"); !strings.Contains(report, "Calls of shop") {
		t.Errorf("report:\n%s", report)
	}
	if changed := command(t, "report", file, "--base", file); !strings.Contains(changed, "no changes of 0.1 % or more") {
		t.Errorf("a recording and itself:\n%s", changed)
	}
	var stderr bytes.Buffer
	if status := run([]string{"export", file, "--func", "x", "-o", filepath.Join(t.TempDir(), "x.csv")}, nil, io.Discard, &stderr); status != exitUsage {
		t.Errorf("a filter of profiles with CSV: status %d: %s", status, stderr.String())
	}
}

// TestExportToCollector sends spans to a server as a collector is.
func TestExportToCollector(t *testing.T) {
	file := recordSynthetic(t, 10_000, synth.Options{Seed: 6})
	calls, _ := recorded(t, file)
	spans, busy := uint64(0), true
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if busy { // once
			busy = false
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		z, err := gzip.NewReader(r.Body)
		if err != nil || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" {
			t.Errorf("%s %v: %v", r.URL, r.Header, err)
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		body, err := io.ReadAll(z)
		var d tracepb.TracesData
		if err == nil {
			err = proto.Unmarshal(body, &d)
		}
		if err != nil {
			t.Error(err)
		}
		for _, rs := range d.ResourceSpans {
			spans += uint64(len(rs.ScopeSpans[0].Spans))
		}
	}))
	defer server.Close()
	command(t, "export", file, "-o", server.URL+"/v1/traces")
	if spans != calls {
		t.Errorf("%d spans arrived, want %d", spans, calls)
	}
	refuse := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no such tenant", http.StatusForbidden) }))
	defer refuse.Close()
	var stderr bytes.Buffer
	if status := run([]string{"export", file, "--format", "otlp", "-o", refuse.URL}, nil, io.Discard, &stderr); status != exitFailure ||
		!strings.Contains(stderr.String(), "403 Forbidden: no such tenant") {
		t.Errorf("status %d: %s", status, stderr.String())
	}
}
