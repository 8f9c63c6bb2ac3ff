package exporter

import (
	"fmt"
	"io"
	"strconv"

	"github.com/parquet-go/parquet-go"

	"github.com/sbxtrace/sbxtrace/trace"
)

// CallRow is a row of a Parquet file: one call. docs/export.md describes the
// columns.
type CallRow struct {
	Start     uint64   `parquet:"ts,delta"`
	Time      *int64   `parquet:"time,optional,timestamp(nanosecond)"`
	Duration  uint64   `parquet:"dur"`
	Self      uint64   `parquet:"self"`
	PID       uint32   `parquet:"pid,dict"`
	TID       uint32   `parquet:"tid,dict"`
	GoID      uint64   `parquet:"goid,dict"`
	Depth     int32    `parquet:"depth"`
	Func      string   `parquet:"func,dict"`
	Module    string   `parquet:"module,dict"`
	Parent    string   `parquet:"parent,dict"`
	File      string   `parquet:"file,dict"`
	Line      int32    `parquet:"line,dict"`
	Thread    string   `parquet:"thread,dict"`
	End       string   `parquet:"end,dict"`
	Args      []uint64 `parquet:"args,list"`
	Ret       *uint64  `parquet:"ret,optional"`
	Gap       bool     `parquet:"gap"`
	Recursive bool     `parquet:"recursive"`
}

// Bounds of what is kept in memory before it is written.
const (
	parquetBatch    = 1024
	parquetRowGroup = 256 << 10
)

// parquetCalls writes a row per call.
type parquetCalls struct {
	names
	opt  CallOptions
	w    *parquet.GenericWriter[CallRow]
	rows []CallRow
	// What rows point to, reused with them.
	times [parquetBatch]int64
	rets  [parquetBatch]uint64
	args  []uint64
	err   error
}

func newParquet(w io.Writer, fns trace.Functions, opt CallOptions) *parquetCalls {
	return &parquetCalls{
		names: names{fns}, opt: opt, rows: make([]CallRow, 0, parquetBatch), args: make([]uint64, 0, 6*parquetBatch),
		w: parquet.NewGenericWriter[CallRow](w, parquet.Compression(&parquet.Zstd), parquet.MaxRowsPerRowGroup(parquetRowGroup),
			parquet.CreatedBy("sbxtrace", "", ""), parquet.KeyValueMetadata("clock", "CLOCK_MONOTONIC, ns"),
			parquet.KeyValueMetadata("unix_time_less_clock_ns", strconv.FormatInt(opt.Wall, 10))),
	}
}

// Err is the first error of writing.
func (p *parquetCalls) Err() error { return p.err }

// Close writes the last rows and the footer.
func (p *parquetCalls) Close() error {
	p.flush()
	if err := p.w.Close(); err != nil && p.err == nil {
		p.err = fmt.Errorf("write calls: %w", err)
	}
	return p.err
}

func (p *parquetCalls) flush() {
	if p.err == nil && len(p.rows) > 0 {
		if _, err := p.w.Write(p.rows); err != nil {
			p.err = fmt.Errorf("write calls: %w", err)
		}
	}
	p.rows, p.args = p.rows[:0], p.args[:0]
}

// Enter implements trace.Sink.
func (p *parquetCalls) Enter(*trace.Lane, *trace.Call) {}

// Event implements trace.Sink: only calls are rows.
func (p *parquetCalls) Event(*trace.Event) {}

// Tick implements trace.Sink.
func (p *parquetCalls) Tick(uint64) {}

// Leave implements trace.Sink.
func (p *parquetCalls) Leave(l *trace.Lane, c *trace.Call) {
	if c.Inherited {
		return
	}
	f := p.of(c.Func)
	n := len(p.rows)
	from := len(p.args)
	p.args = append(p.args, c.Args[:c.NArgs]...)
	r := CallRow{
		Start: c.Start, Duration: c.Duration(), Self: c.Self(), PID: l.PID, TID: c.TID, GoID: l.GoID, Depth: c.Depth,
		Func: f.Name, Module: module(&f), File: f.File, Line: int32(f.Line), Thread: toUTF8(l.Comm), End: c.End.String(),
		Args: p.args[from:], Gap: c.Gap, Recursive: c.Recursive,
	}
	if c.Depth > 0 {
		up := p.of(c.Parent)
		r.Parent = up.Name
	}
	if p.opt.Wall != 0 {
		p.times[n] = int64(c.Start) + p.opt.Wall
		r.Time = &p.times[n]
	}
	if c.HasRet {
		p.rets[n] = c.Ret
		r.Ret = &p.rets[n]
	}
	if p.rows = append(p.rows, r); len(p.rows) == parquetBatch {
		p.flush()
	}
}
