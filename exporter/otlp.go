package exporter

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/sbxtrace/sbxtrace/internal/term"
	"github.com/sbxtrace/sbxtrace/trace"
)

// otlpBatch is how many spans of a process go together.
const otlpBatch = 512

// otlp writes calls as OpenTelemetry spans: an outermost call begins a trace,
// callees are its spans. A line of OTLP/JSON per batch, as the specification of
// OTLP files has it, or requests in protobuf for a collector.
type otlp struct {
	callOutput
	names
	opt     CallOptions
	open    openCalls[spanID]
	count   uint64
	batches map[uint32]*spanBatch
	known   trace.ByFunc[[]spanAttr] // attributes of functions
}

// spanID are the ids of a call's span.
type spanID struct {
	trace  [16]byte
	span   uint64
	parent uint64 // 0: it began the trace
}

// span is a call that ended.
type span struct {
	spanID
	name       string
	start, end uint64 // ns since 1970, or CLOCK_MONOTONIC where that is not known
	attrs      []spanAttr
}

// spanAttr is an attribute: text, or a number where text is empty.
type spanAttr struct {
	key    string
	text   string
	number int64
	isText bool
}

type spanBatch struct{ spans []span }

func newOTLP(w io.Writer, fns trace.Functions, opt CallOptions) *otlp {
	return &otlp{callOutput: callOutput{w: w}, names: names{fns}, opt: opt, open: newOpenCalls[spanID](), batches: make(map[uint32]*spanBatch)}
}

// id returns the next id: a permutation of a counter (SplitMix64), so that ids
// are spread and none comes twice.
func (o *otlp) id() uint64 {
	for {
		o.count++
		z := o.opt.Seed + o.count*0x9e3779b97f4a7c15
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		if z ^= z >> 31; z != 0 {
			return z
		}
	}
}

// Enter implements trace.Sink.
func (o *otlp) Enter(l *trace.Lane, c *trace.Call) {
	o.open.enter(l, c, func(up *spanID) spanID {
		var id spanID
		if up != nil {
			id.trace, id.parent = up.trace, up.span
		} else {
			binary.BigEndian.PutUint64(id.trace[:], o.id())
			binary.BigEndian.PutUint64(id.trace[8:], o.id())
		}
		id.span = o.id()
		return id
	})
}

// Leave implements trace.Sink.
func (o *otlp) Leave(l *trace.Lane, c *trace.Call) {
	id, ok := o.open.leave(l, c)
	if !ok {
		return
	}
	f := o.of(c.Func)
	s := span{spanID: id, name: f.Name, start: c.Start + uint64(o.opt.Wall), end: c.Last + uint64(o.opt.Wall)}
	s.end = max(s.end, s.start)
	s.attrs = append(s.attrs, o.function(c.Func)...)
	s.attrs = append(s.attrs, spanAttr{key: "thread.id", number: int64(c.TID)})
	if l.Comm != "" {
		s.attrs = append(s.attrs, textAttr("thread.name", term.Clean(l.Comm)))
	}
	if l.GoID != 0 {
		s.attrs = append(s.attrs, spanAttr{key: "sbxtrace.goroutine.id", number: int64(l.GoID)})
	}
	for i := range int(c.NArgs) {
		s.attrs = append(s.attrs, textAttr("sbxtrace."+argNames[i], hex(c.Args[i])))
	}
	if c.HasRet {
		s.attrs = append(s.attrs, textAttr("sbxtrace.ret", hex(c.Ret)))
	}
	if c.End != trace.EndReturn {
		s.attrs = append(s.attrs, textAttr("sbxtrace.end", c.End.String()))
	}
	b := o.batches[l.PID]
	if b == nil {
		b = new(spanBatch)
		o.batches[l.PID] = b
	}
	if b.spans = append(b.spans, s); len(b.spans) == otlpBatch {
		o.flush(l.PID, b)
	}
}

func textAttr(key, text string) spanAttr { return spanAttr{key: key, text: text, isText: true} }

// function returns the attributes of a function, by OpenTelemetry's semantic
// conventions for code.
func (o *otlp) function(id trace.FuncID) []spanAttr {
	if a := o.known.Get(id); a != nil {
		return *a
	}
	f := o.of(id)
	attrs := []spanAttr{textAttr("code.function.name", f.Name)}
	if f.File != "" {
		attrs = append(attrs, textAttr("code.file.path", f.File), spanAttr{key: "code.line.number", number: int64(f.Line)})
	}
	if m := module(&f); m != "" {
		attrs = append(attrs, textAttr("sbxtrace.module", m))
	}
	o.known.Set(id, &attrs)
	return attrs
}

// Event implements trace.Sink: only calls are spans; the end of a process ends
// its batch.
func (o *otlp) Event(e *trace.Event) {
	if b := o.batches[e.PID]; e.Kind == trace.KindProcessExit && b != nil {
		o.flush(e.PID, b)
		delete(o.batches, e.PID)
	}
}

// Tick implements trace.Sink.
func (o *otlp) Tick(uint64) {}

// Close writes the last batches.
func (o *otlp) Close() error {
	for _, pid := range sortedKeys(o.batches) {
		o.flush(pid, o.batches[pid])
	}
	o.drain()
	return o.err
}

// flush writes a batch, or sends it.
func (o *otlp) flush(pid uint32, b *spanBatch) {
	if len(b.spans) == 0 || o.err != nil {
		b.spans = b.spans[:0]
		return
	}
	resource := []spanAttr{{key: "process.pid", number: int64(pid)}}
	if name := processName(&o.opt, pid); name != "" {
		resource = append(resource, textAttr("service.name", name))
	}
	if o.opt.Send != nil {
		o.err = o.opt.Send(appendOTLP(nil, resource, b.spans))
	} else {
		o.buf = append(appendOTLPJSON(o.buf, resource, b.spans), '\n')
		o.spill()
	}
	b.spans = b.spans[:0]
}

const otlpScope = "sbxtrace"

// appendOTLP appends an ExportTraceServiceRequest, which is a TracesData too.
// Facts: opentelemetry/proto/trace/v1/trace.proto.
func appendOTLP(b []byte, resource []spanAttr, spans []span) []byte {
	return appendMessageField(b, 1, func(b []byte) []byte { // resource_spans
		b = appendMessageField(b, 1, func(b []byte) []byte { return appendAttrs(b, 1, resource) })
		return appendMessageField(b, 2, func(b []byte) []byte { // scope_spans
			b = appendMessageField(b, 1, func(b []byte) []byte { return appendBytesField(b, 1, otlpScope) })
			for i := range spans {
				b = appendMessageField(b, 2, func(b []byte) []byte { return appendSpan(b, &spans[i]) })
			}
			return b
		})
	})
}

func appendSpan(b []byte, s *span) []byte {
	var id [8]byte
	binary.BigEndian.PutUint64(id[:], s.span)
	b = appendBytesField(b, 1, s.trace[:])
	b = appendBytesField(b, 2, id[:])
	if s.parent != 0 {
		binary.BigEndian.PutUint64(id[:], s.parent)
		b = appendBytesField(b, 4, id[:])
	}
	b = appendBytesField(b, 5, toUTF8(s.name))
	b = appendVarintField(b, 6, 1) // SPAN_KIND_INTERNAL
	b = appendFixed64Field(b, 7, s.start)
	b = appendFixed64Field(b, 8, s.end)
	return appendAttrs(b, 9, s.attrs)
}

func appendAttrs(b []byte, field int, attrs []spanAttr) []byte {
	for i := range attrs {
		a := &attrs[i]
		b = appendMessageField(b, field, func(b []byte) []byte {
			b = appendBytesField(b, 1, a.key)
			return appendMessageField(b, 2, func(b []byte) []byte {
				if a.isText {
					return appendBytesField(b, 1, toUTF8(a.text))
				}
				return appendVarintField(b, 3, uint64(a.number))
			})
		})
	}
	return b
}

// appendOTLPJSON appends the same in OTLP's JSON: ids in hexadecimal, 64-bit
// numbers as strings.
func appendOTLPJSON(b []byte, resource []spanAttr, spans []span) []byte {
	b = append(b, `{"resourceSpans":[{"resource":{"attributes":`...)
	b = appendAttrsJSON(b, resource)
	b = append(b, `},"scopeSpans":[{"scope":{"name":"`+otlpScope+`"},"spans":[`...)
	for i := range spans {
		if i > 0 {
			b = append(b, ',')
		}
		s := &spans[i]
		b = fmt.Appendf(b, `{"traceId":"%x","spanId":"%016x"`, s.trace, s.span)
		if s.parent != 0 {
			b = fmt.Appendf(b, `,"parentSpanId":"%016x"`, s.parent)
		}
		b = appendJSONString(append(b, `,"name":`...), s.name)
		b = fmt.Appendf(b, `,"kind":1,"startTimeUnixNano":"%d","endTimeUnixNano":"%d","attributes":`, s.start, s.end)
		b = append(appendAttrsJSON(b, s.attrs), '}')
	}
	return append(b, "]}]}]}"...)
}

func appendAttrsJSON(b []byte, attrs []spanAttr) []byte {
	b = append(b, '[')
	for i, a := range attrs {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendJSONString(append(b, `{"key":`...), a.key), `,"value":{`...)
		if a.isText {
			b = appendJSONString(append(b, `"stringValue":`...), a.text)
		} else {
			b = append(strconv.AppendInt(append(b, `"intValue":"`...), a.number, 10), '"')
		}
		b = append(b, "}}"...)
	}
	return append(b, ']')
}

// ErrCollector is matched by the error for a collector that does not take spans.
var ErrCollector = errors.New("the collector does not take the spans")

// OTLPSender returns what sends batches of spans to a collector over HTTP: url
// is that of its traces, http://localhost:4318/v1/traces most often. A batch
// that is turned away for the moment is sent again, a few times.
func OTLPSender(url string) func(batch []byte) error {
	client := &http.Client{Timeout: 30 * time.Second}
	return func(batch []byte) error {
		var body bytes.Buffer
		z := gzip.NewWriter(&body)
		z.Write(batch)
		z.Close()
		wait := 200 * time.Millisecond
		for try := 1; ; try++ {
			again, err := post(client, url, body.Bytes())
			if err == nil || !again || try == 5 {
				return err
			}
			time.Sleep(wait)
			wait *= 2
		}
	}
}

// post sends one request and reports whether a failure may pass.
func post(client *http.Client, url string, body []byte) (again bool, err error) {
	req, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrCollector, err)
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("Content-Encoding", "gzip")
	resp, err := client.Do(req)
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrCollector, err)
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	switch resp.StatusCode {
	case http.StatusOK, http.StatusAccepted:
		return false, nil
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		again = true
	}
	text := term.Clean(string(bytes.TrimSpace(answer)))
	if resp.Header.Get("Content-Type") == "application/x-protobuf" {
		text = base64.StdEncoding.EncodeToString(answer)
	}
	return again, fmt.Errorf("%w: %s: %s", ErrCollector, resp.Status, term.Elide(text, 200))
}
