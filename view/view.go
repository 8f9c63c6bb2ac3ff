// Package view renders streams of calls: a live call tree and tables for
// people, JSON lines for programs. Tree and JSON are trace.Sinks; what they
// print depends on the events alone, so a replayed recording prints byte for
// byte what was printed live.
package view

import (
	"io"
	"strconv"

	"github.com/sbxtrace/sbxtrace/trace"
)

// Frame appends the name of a return address of process pid to dst: a function
// with its offset, a file and line, whatever the caller can tell. It must not
// append line breaks.
type Frame func(dst []byte, pid uint32, addr uint64) []byte

// Units of time in ns.
const (
	µs  = 1000
	ms  = 1000 * µs
	sec = 1000 * ms
)

// writeSize is how much output is collected before it is written.
const writeSize = 64 << 10

// output collects bytes for large writes and keeps the first error: after it
// nothing more is written.
type output struct {
	w   io.Writer
	buf []byte
	err error
}

// drain writes what was collected.
func (o *output) drain() {
	if o.err == nil && len(o.buf) > 0 {
		_, o.err = o.w.Write(o.buf)
	}
	o.buf = o.buf[:0]
}

// spill writes what was collected if it is much.
func (o *output) spill() {
	if len(o.buf) >= writeSize {
		o.drain()
	}
}

// funcOf describes fn, also for ids that the session does not know.
func funcOf(fns trace.Functions, fn trace.FuncID) trace.Func {
	if f := fns.Func(fn); f != nil {
		return *f
	}
	return trace.Func{ID: fn, Name: "func#" + strconv.FormatUint(uint64(fn), 10)}
}

// laneKey tells lanes apart: a goroutine is one wherever it runs.
type laneKey struct {
	pid, tid uint32
	goid     uint64
}

func keyOf(l *trace.Lane) laneKey {
	k := laneKey{pid: l.PID, goid: l.GoID}
	if k.goid == 0 {
		k.tid = l.TID
	}
	return k
}

func keyOfEvent(e *trace.Event) laneKey {
	k := laneKey{pid: e.PID, goid: e.GoID}
	if k.goid == 0 {
		k.tid = e.TID
	}
	return k
}

func appendUint(dst []byte, n uint64) []byte { return strconv.AppendUint(dst, n, 10) }

func appendHex(dst []byte, n uint64) []byte {
	return strconv.AppendUint(append(dst, "0x"...), n, 16)
}
