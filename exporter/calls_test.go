package exporter

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"strconv"
	"strings"
	"testing"

	"github.com/google/pprof/profile"
	"github.com/parquet-go/parquet-go"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/sbxtrace/sbxtrace/internal/synth"
	"github.com/sbxtrace/sbxtrace/trace"
)

const (
	testSeed  = 3
	testSteps = 5000
)

// same compares sums over an export with those of the stream.
func same(t *testing.T, got, want *counted) {
	t.Helper()
	if got.calls != want.calls || got.total != want.total || got.self != want.self {
		t.Errorf("%d calls, %d ns, %d ns of their own; want %d, %d, %d", got.calls, got.total, got.self, want.calls, want.total, want.self)
	}
	if !maps.Equal(got.perFunc, want.perFunc) {
		t.Errorf("calls per function are %v, want %v", got.perFunc, want.perFunc)
	}
}

// utf8Names renames what cannot be written as it is.
func utf8Names(c *counted) *counted {
	out := *c
	out.perFunc = map[string]uint64{}
	for name, n := range c.perFunc {
		out.perFunc[toUTF8(name)] = n
	}
	return &out
}

func TestChrome(t *testing.T) {
	data := export(t, FormatChrome, testSeed, testSteps, shopOptions())
	var doc struct {
		TraceEvents []struct {
			Ph, Name, Cat, S string
			PID, TID         uint64
			TS, Dur          json.Number
			Args             map[string]any
		}
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(&doc); err != nil {
		t.Fatal(err)
	}
	ns := func(n json.Number) uint64 {
		v, err := strconv.ParseUint(strings.Replace(n.String(), ".", "", 1), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	got := newReference().counted
	kinds, threads := map[string]int{}, map[string]bool{}
	for _, e := range doc.TraceEvents {
		kinds[e.Ph]++
		switch e.Ph {
		case "X":
			got.calls++
			got.total += ns(e.Dur)
			self, _ := e.Args["self_ns"].(json.Number).Int64()
			got.self += uint64(self)
			got.perFunc[e.Name]++
		case "M":
			threads[e.Name+" "+e.Args["name"].(string)] = true
		}
	}
	same(t, &got, utf8Names(expected(testSeed, testSteps)))
	for _, want := range []string{"process_name shop", "thread_name worker", "thread_name goroutine 17", "thread_name goroutine 18"} {
		if !threads[want] {
			t.Errorf("no %s among %v", want, threads)
		}
	}
	if kinds["i"] == 0 {
		t.Error("no instant events")
	}
}

func TestCSV(t *testing.T) {
	rows, err := csv.NewReader(bytes.NewReader(export(t, FormatCSV, testSeed, testSteps, shopOptions()))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(rows[0], ",") != strings.Join(csvHeader, ",") {
		t.Errorf("columns %v", rows[0])
	}
	got := newReference().counted
	number := func(s string) uint64 {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for _, r := range rows[1:] {
		got.calls++
		got.total += number(r[1])
		got.self += number(r[2])
		got.perFunc[r[7]]++
	}
	same(t, &got, utf8Names(expected(testSeed, testSteps)))
}

func TestParquet(t *testing.T) {
	data := export(t, FormatParquet, testSeed, testSteps, shopOptions())
	rows, err := parquet.Read[CallRow](bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	got := newReference().counted
	for i := range rows {
		r := &rows[i]
		got.calls++
		got.total += r.Duration
		got.self += r.Self
		got.perFunc[r.Func]++
		got.ends[r.End]++
		if r.Time == nil || *r.Time != int64(r.Start)+shopWall {
			t.Fatalf("row %d began at %v", i, r.Time)
		}
		if r.Func == "malloc" && (len(r.Args) != 2 || r.Args[1] != 1<<63 || r.Module != "libc.so.6") {
			t.Fatalf("row %d: %+v", i, r)
		}
		if r.Func == "malloc" && r.End == "return" && (r.Ret == nil || *r.Ret != 0xffff_8000_0000_0001) {
			t.Fatalf("row %d returned %v", i, r.Ret)
		}
		if r.Func != "malloc" && (r.Ret != nil || len(r.Args) > 0) {
			t.Fatalf("row %d: %+v", i, r)
		}
	}
	want := utf8Names(expected(testSeed, testSteps))
	same(t, &got, want)
	if !maps.Equal(got.ends, want.ends) {
		t.Errorf("ends are %v, want %v", got.ends, want.ends)
	}
	f, err := parquet.OpenFile(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"ts": "INT(64,false)", "time": "TIMESTAMP", "func": "STRING", "args": "LIST", "pid": "INT(32,false)"} {
		c, ok := f.Schema().Lookup(name)
		if name == "args" {
			continue
		}
		if !ok || !strings.Contains(c.Node.Type().String(), want) {
			t.Errorf("column %s is %v, want %s", name, c.Node, want)
		}
	}
	if v, ok := f.Lookup("unix_time_less_clock_ns"); !ok || v != strconv.FormatInt(shopWall, 10) {
		t.Errorf("wall clock %q", v)
	}
}

func TestOTLP(t *testing.T) {
	want := utf8Names(expected(testSeed, testSteps))
	lines := export(t, FormatOTLP, testSeed, testSteps, shopOptions())
	var fromJSON, fromProto []*tracepb.TracesData
	for line := range bytes.Lines(lines) {
		var d tracepb.TracesData
		// OTLP/JSON has ids in hexadecimal where protobuf's JSON has base64.
		if err := protojson.Unmarshal(hexToBase64(t, line), &d); err != nil {
			t.Fatal(err)
		}
		fromJSON = append(fromJSON, &d)
	}
	opt := shopOptions()
	opt.Send = func(batch []byte) error {
		var d tracepb.TracesData
		if err := proto.Unmarshal(batch, &d); err != nil {
			return err
		}
		if len(d.ProtoReflect().GetUnknown()) > 0 {
			return errors.New("unknown fields")
		}
		fromProto = append(fromProto, &d)
		return nil
	}
	export(t, FormatOTLP, testSeed, testSteps, opt)
	for name, batches := range map[string][]*tracepb.TracesData{"JSON": fromJSON, "protobuf": fromProto} {
		got := newReference().counted
		spans, parents := map[string]*tracepb.Span{}, 0
		for _, d := range batches {
			for _, rs := range d.ResourceSpans {
				if n := len(rs.ScopeSpans[0].Spans); n > otlpBatch {
					t.Errorf("%s: a batch of %d spans", name, n)
				}
				for _, s := range rs.ScopeSpans[0].Spans {
					got.calls++
					got.total += s.EndTimeUnixNano - s.StartTimeUnixNano
					got.perFunc[s.Name]++
					if len(s.TraceId) != 16 || len(s.SpanId) != 8 || spans[string(s.SpanId)] != nil {
						t.Fatalf("%s: ids %x %x", name, s.TraceId, s.SpanId)
					}
					spans[string(s.SpanId)] = s
				}
			}
		}
		got.self = want.self // spans have no time of their own: it is what callees leave
		same(t, &got, want)
		for _, s := range spans {
			if len(s.ParentSpanId) == 0 {
				continue
			}
			parents++
			up := spans[string(s.ParentSpanId)]
			if up != nil && strings.Contains(up.String(), `"detached"`) {
				continue // it was given up before its callee ended
			}
			if up == nil || !bytes.Equal(up.TraceId, s.TraceId) || up.StartTimeUnixNano > s.StartTimeUnixNano || up.EndTimeUnixNano < s.EndTimeUnixNano {
				t.Fatalf("%s: span %v is not within its parent %v", name, s, up)
			}
		}
		if parents == 0 || parents == len(spans) {
			t.Errorf("%s: %d of %d spans have parents", name, parents, len(spans))
		}
	}
	if len(fromJSON) != len(fromProto) || !proto.Equal(fromJSON[0], fromProto[0]) {
		t.Error("JSON and protobuf differ")
	}
}

// hexToBase64 rewrites the ids of OTLP/JSON for protobuf's own reader.
func hexToBase64(t *testing.T, line []byte) []byte {
	t.Helper()
	var doc any
	d := json.NewDecoder(bytes.NewReader(line))
	d.UseNumber()
	if err := d.Decode(&doc); err != nil {
		t.Fatal(err)
	}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			for k, e := range v {
				if k == "traceId" || k == "spanId" || k == "parentSpanId" {
					var id []byte
					for i := 0; i+1 < len(e.(string)); i += 2 {
						b, err := strconv.ParseUint(e.(string)[i:i+2], 16, 8)
						if err != nil {
							t.Fatal(err)
						}
						id = append(id, byte(b))
					}
					v[k] = id
					continue
				}
				walk(e)
			}
		}
	}
	walk(doc)
	out, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestCallProfile(t *testing.T) {
	p, err := profile.Parse(bytes.NewReader(export(t, FormatPprof, testSeed, testSteps, shopOptions())))
	if err != nil {
		t.Fatal(err)
	}
	got := newReference().counted
	for _, s := range p.Sample {
		got.calls += uint64(s.Value[0])
		got.self += uint64(s.Value[2])
		got.perFunc[s.Location[0].Line[0].Function.Name] += uint64(s.Value[0])
	}
	want := utf8Names(expected(testSeed, testSteps))
	got.total = want.total // of recursive calls only the outermost counts
	if perFunc := want.perFunc; len(perFunc) != len(got.perFunc) {
		t.Errorf("functions %v, want %v", got.perFunc, perFunc)
	}
	got.perFunc = want.perFunc
	same(t, &got, want)
	for _, format := range []Format{FormatFolded, FormatHTML, FormatSVG, FormatText} {
		if len(export(t, format, testSeed, testSteps, shopOptions())) == 0 {
			t.Errorf("%s is empty", format)
		}
	}
}

func TestCallJSONLines(t *testing.T) {
	got := newReference().counted
	for line := range bytes.Lines(export(t, FormatJSON, testSeed, testSteps, shopOptions())) {
		var o struct {
			Type, Func string
			Dur, Self  uint64
		}
		if err := json.Unmarshal(line, &o); err != nil {
			t.Fatal(err)
		}
		if o.Type == "call" {
			got.calls++
			got.total += o.Dur
			got.self += o.Self
			got.perFunc[o.Func]++
		}
	}
	same(t, &got, utf8Names(expected(testSeed, testSteps)))
}

func TestCallErrors(t *testing.T) {
	if _, err := NewCalls(io.Discard, shop, "gif", CallOptions{}); !errors.Is(err, ErrFormat) {
		t.Errorf("gif: %v", err)
	}
	for _, format := range CallFormats {
		c, err := NewCalls(&failing{left: 10}, shop, format, shopOptions())
		if err != nil {
			t.Fatal(err)
		}
		stream(testSeed, 20_000, c)
		if err := c.Close(); !errors.Is(err, errFull) || !errors.Is(c.Err(), errFull) {
			t.Errorf("%s: %v", format, err)
		}
	}
	for _, format := range []Format{FormatChrome, FormatPerfetto, FormatParquet, FormatCSV, FormatOTLP} {
		if err := WriteProfile(io.Discard, cacheServer(), format, Options{}); !errors.Is(err, ErrFormat) {
			t.Errorf("a profile as %s: %v", format, err)
		}
		if n := len(export(t, format, 1, 0, CallOptions{})); n == 0 && format != FormatOTLP {
			t.Errorf("%s of nothing is empty", format)
		}
	}
}

// TestCallsOfTroubledStreams has every format take streams in which exits are
// missing, processes fork and end, functions are detached, stacks change.
func TestCallsOfTroubledStreams(t *testing.T) {
	for seed := range uint64(8) {
		for _, format := range CallFormats {
			s := synth.New(synth.Options{Seed: seed, Threads: 3, Goroutines: 3, Functions: 10, Args: true, Stacks: true, Trouble: true})
			var out bytes.Buffer
			c, err := NewCalls(&out, s, format, shopOptions())
			if err != nil {
				t.Fatal(err)
			}
			p := trace.NewPairer(c, synth.Region)
			for range 4000 {
				p.Event(s.Next())
			}
			p.Finish(s.Now())
			if err := c.Close(); err != nil || out.Len() == 0 {
				t.Errorf("%s of stream %d: %d bytes, %v", format, seed, out.Len(), err)
			}
		}
	}
}
