// Package view renders streams of calls: a live call tree and tables for
// people, JSON lines for programs. Tree and JSON are trace.Sinks; what they
// print depends on the events alone, so a replayed recording prints byte for
// byte what was printed live.
package view

import (
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/sbxtrace/sbxtrace/trace"
)

// Frame appends the name of a return address of process pid to dst: a function
// with its offset, a file and line, whatever the caller can tell. It must not
// append line breaks.
type Frame func(dst []byte, pid uint32, addr uint64) []byte

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

// maxName bounds a function's name in bytes: mangled names of hostile or
// heavily templated binaries can be of any length.
const maxName = 4096

// clean returns s as valid UTF-8 without control characters, which names from
// hostile binaries could use to command the terminal.
func clean(s string) string {
	if len(s) > maxName {
		n := maxName - len("…")
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n] + "…"
	}
	ok := true
	for _, r := range s {
		if r == utf8.RuneError || unicode.IsControl(r) || bidi(r) {
			ok = false
			break
		}
	}
	if ok {
		return s
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || bidi(r) {
			return utf8.RuneError
		}
		return r
	}, s)
}

// bidi reports whether r changes the direction of text, which could make a
// name read as another.
func bidi(r rune) bool {
	return r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == 0x2028 || r == 0x2029
}

// elide shortens s to width columns by leaving out its middle.
func elide(s string, width int) string {
	n := utf8.RuneCountInString(s)
	if n <= width || width <= 0 {
		return s
	}
	if width == 1 {
		return "…"
	}
	r := []rune(s)
	head := width / 2
	return string(r[:head]) + "…" + string(r[n-(width-1-head):])
}

// funcOf describes fn, also for ids that the session does not know.
func funcOf(fns trace.Functions, fn trace.FuncID) trace.Func {
	if f := fns.Func(fn); f != nil {
		return *f
	}
	return trace.Func{ID: fn, Name: "func#" + string(appendUint(nil, uint64(fn)))}
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
