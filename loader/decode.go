package loader

import (
	"unicode"
	"unicode/utf8"
	"unsafe"

	"github.com/sbxtrace/sbxtrace/bpf"
	"github.com/sbxtrace/sbxtrace/trace"
)

// decode fills e from one record of the ring and reports whether it could: a
// record of unknown kind or short length is left out. Slices of e alias raw.
// Nothing is allocated, except for the names in task events.
func decode(raw []byte, e *trace.Event, py *pythonCalls) bool {
	if len(raw) < int(unsafe.Sizeof(bpf.TraceEventHeader{})) {
		return false
	}
	h := (*bpf.TraceEventHeader)(unsafe.Pointer(&raw[0]))
	e.Time, e.PID, e.TID = h.Time, h.Pid, h.Tid
	e.Func, e.Kind, e.Flags = trace.FuncID(h.Func), trace.Kind(h.Kind), trace.Flags(h.Flags)
	switch e.Kind {
	case trace.KindEntry, trace.KindExit, trace.KindGoExit:
		return decodeCall(raw, e, py)
	}
	e.GoID, e.Args, e.Stack, e.Texts = 0, nil, nil, nil
	switch e.Kind {
	case trace.KindFork, trace.KindExec, trace.KindTaskExit, trace.KindProcessExit, trace.KindCandidate:
		if len(raw) < int(unsafe.Sizeof(bpf.TraceTaskEvent{})) {
			return false
		}
		t := (*bpf.TraceTaskEvent)(unsafe.Pointer(&raw[0]))
		e.Child, e.ChildPID, e.Comm, e.Status = t.Child, t.ChildPid, cString(t.Comm[:]), 0
		if e.Kind == trace.KindTaskExit || e.Kind == trace.KindProcessExit {
			e.Child, e.Status = 0, t.Child
		}
	case trace.KindLost:
		if len(raw) < int(unsafe.Sizeof(bpf.TraceLostEvent{})) {
			return false
		}
		l := (*bpf.TraceLostEvent)(unsafe.Pointer(&raw[0]))
		e.Count, e.CPU, e.Cause = l.Count, l.Cpu, trace.LostCause(l.Cause)
	case trace.KindUSDT:
		return decodeStatic(raw, e)
	default:
		return false
	}
	return true
}

// decodeCall tells the call records apart by their length.
func decodeCall(raw []byte, e *trace.Event, py *pythonCalls) bool {
	e.Args, e.Stack = nil, nil
	switch len(raw) {
	case int(unsafe.Sizeof(bpf.TraceCallEvent{})):
		c := (*bpf.TraceCallEvent)(unsafe.Pointer(&raw[0]))
		e.SP, e.GoID = c.Sp, c.Goid
	case int(unsafe.Sizeof(bpf.TraceArgsEvent{})):
		a := (*bpf.TraceArgsEvent)(unsafe.Pointer(&raw[0]))
		e.SP, e.GoID = a.C.Sp, a.C.Goid
		if e.Kind == trace.KindExit {
			e.Ret = a.Args[0]
		} else {
			e.Args = a.Args[:]
		}
	case int(unsafe.Sizeof(bpf.TraceStackEvent{})):
		s := (*bpf.TraceStackEvent)(unsafe.Pointer(&raw[0]))
		e.SP, e.GoID = s.A.C.Sp, s.A.C.Goid
		e.Args = s.A.Args[:]
		e.Stack = s.Stack[:min(s.Depth, uint64(len(s.Stack)))]
	case int(unsafe.Sizeof(bpf.TracePythonEvent{})):
		return py.decode((*bpf.TracePythonEvent)(unsafe.Pointer(&raw[0])), e)
	default:
		return false
	}
	return true
}

// decodeStatic tells the records of static probes apart by their length.
func decodeStatic(raw []byte, e *trace.Event) bool {
	if len(raw) < int(unsafe.Sizeof(bpf.TraceUsdtEvent{})) {
		return false
	}
	u := (*bpf.TraceUsdtEvent)(unsafe.Pointer(&raw[0]))
	e.Args, e.Unread = u.Args[:min(int(u.Nargs), len(u.Args))], u.Unread
	if len(raw) < int(unsafe.Sizeof(bpf.TraceUsdtTextEvent{})) {
		return true
	}
	t := (*bpf.TraceUsdtTextEvent)(unsafe.Pointer(&raw[0]))
	for i := range t.Texts {
		x := &t.Texts[i]
		if s := text(x.Text[:min(int(x.Len), len(x.Text))], len(x.Text)); s != "" && int(x.Arg) < len(e.Args) {
			if e.Texts == nil {
				e.Texts = make([]string, len(e.Args))
			}
			e.Texts[x.Arg] = s
		}
	}
	return true
}

// leastText is the length of the shortest string that is taken for one: what
// numbers look like one by chance is shorter.
const leastText = 3

// text returns the string that b is, which ends with its 0 byte, or "" if it
// does not look like one. Where it fills all of room it was cut, and gets an
// ellipsis.
func text(b []byte, room int) string {
	if len(b) < leastText+1 || b[len(b)-1] != 0 {
		return ""
	}
	cut := len(b) == room
	b = b[:len(b)-1]
	if cut {
		b = wholeRunes(b)
	}
	s := string(b)
	for _, r := range s {
		if r == utf8.RuneError || !unicode.IsPrint(r) && r != '\n' && r != '\t' && r != '\r' {
			return ""
		}
	}
	if cut {
		s += "…"
	}
	return s
}

// wholeRunes leaves off the beginning of a character at the end of b.
func wholeRunes(b []byte) []byte {
	for n := 1; n < utf8.UTFMax && n <= len(b); n++ {
		if end := b[len(b)-n:]; utf8.RuneStart(end[0]) {
			if utf8.FullRune(end) {
				return b
			}
			return b[:len(b)-n]
		}
	}
	return b
}

func cString(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}
