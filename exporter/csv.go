package exporter

import (
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/sbxtrace/sbxtrace/trace"
)

// csvHeader names the columns. They mean what the fields of a call line in JSON
// mean; args are joined by spaces.
var csvHeader = []string{"ts", "dur", "self", "pid", "tid", "goid", "depth", "func", "module", "parent", "args", "ret", "end", "gap", "recursive"}

// csvCalls writes a row per call as RFC 4180 has it.
type csvCalls struct {
	names
	w   *csv.Writer
	row []string
	err error
}

func newCSV(w io.Writer, fns trace.Functions) *csvCalls {
	c := &csvCalls{names: names{fns}, w: csv.NewWriter(w), row: make([]string, len(csvHeader))}
	c.write(csvHeader)
	return c
}

func (c *csvCalls) write(row []string) {
	if c.err == nil {
		if err := c.w.Write(row); err != nil {
			c.err = fmt.Errorf("write calls: %w", err)
		}
	}
}

// Err is the first error of writing.
func (c *csvCalls) Err() error { return c.err }

// Close writes what is buffered.
func (c *csvCalls) Close() error {
	c.w.Flush()
	if err := c.w.Error(); err != nil && c.err == nil {
		c.err = fmt.Errorf("write calls: %w", err)
	}
	return c.err
}

// Enter implements trace.Sink.
func (c *csvCalls) Enter(*trace.Lane, *trace.Call) {}

// Event implements trace.Sink: only calls are rows.
func (c *csvCalls) Event(*trace.Event) {}

// Tick implements trace.Sink.
func (c *csvCalls) Tick(uint64) {}

// Leave implements trace.Sink.
func (c *csvCalls) Leave(l *trace.Lane, call *trace.Call) {
	if call.Inherited {
		return
	}
	number := func(n uint64) string { return strconv.FormatUint(n, 10) }
	f := c.of(call.Func)
	parent, ret, end := "", "", ""
	if call.Depth > 0 {
		up := c.of(call.Parent)
		parent = up.Name
	}
	if call.HasRet {
		ret = hex(call.Ret)
	}
	if call.End != trace.EndReturn {
		end = call.End.String()
	}
	var args []string
	for i := range int(call.NArgs) {
		args = append(args, hex(call.Args[i]))
	}
	c.row = append(c.row[:0], number(call.Start), number(call.Duration()), number(call.Self()), number(uint64(l.PID)), number(uint64(call.TID)),
		number(l.GoID), number(uint64(call.Depth)), f.Name, module(&f), parent, strings.Join(args, " "), ret, end,
		strconv.FormatBool(call.Gap), strconv.FormatBool(call.Recursive))
	c.write(c.row)
}
