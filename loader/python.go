package loader

import (
	"bytes"
	"sync"

	"github.com/sbxtrace/sbxtrace/bpf"
	"github.com/sbxtrace/sbxtrace/trace"
)

// PythonFunc names a Python function that was first seen in an event.
type PythonFunc struct {
	Name string // "handle"
	File string // "/srv/app.py"
	Line int    // of the definition
}

// maxPythonFuncs bounds how many Python functions are told apart: a program
// that makes functions without end shows the later ones under one name.
const maxPythonFuncs = 1 << 16

// pythonCalls turns CPython's static probes into entries and exits. CPython
// 3.11 and newer run nested Python calls in one C frame, so the stack pointer
// does not tell them apart: the depth, kept here per thread, takes its place.
type pythonCalls struct {
	// intern gives a new function its id.
	intern func(PythonFunc) trace.FuncID
	ids    map[pythonKey]trace.FuncID
	names  map[trace.FuncID]string
	open   map[uint32][]trace.FuncID // by thread
	// announced are the sites at which an interpreter itself says that a
	// function begins, though it has other sites that are probed for it: CPython
	// 3.11 does when its calls are traced in Python (sys.settrace, or the probe
	// python:line), and then goes on to such a site.
	announced sync.Map            // by trace.FuncID
	last      map[uint32]struct{} // threads whose last event was an announced entry
}

type pythonKey struct {
	file [192]byte
	name [96]byte
	line uint64
}

func newPythonCalls(intern func(PythonFunc) trace.FuncID) *pythonCalls {
	return &pythonCalls{
		intern: intern,
		ids:    make(map[pythonKey]trace.FuncID),
		names:  make(map[trace.FuncID]string),
		open:   make(map[uint32][]trace.FuncID),
		last:   make(map[uint32]struct{}),
	}
}

func (p *pythonCalls) decode(r *bpf.TracePythonEvent, e *trace.Event) bool {
	e.Flags |= trace.FlagGo // stack places are relative, see trace.Event.SP
	e.GoID = 0
	open := p.open[e.TID]
	_, again := p.last[e.TID]
	if again {
		delete(p.last, e.TID)
	}
	if e.Kind == trace.KindEntry {
		if _, announced := p.announced.Load(e.Func); announced {
			p.last[e.TID] = struct{}{}
		} else if n := len(open); again && n > 0 && p.names[open[n-1]] == string(cBytes(r.Func[:])) {
			return false // the same call once more
		}
		e.Func = p.id(r)
		open = append(open, e.Func)
		e.SP = -uint64(8 * len(open))
		p.open[e.TID] = open
		return true
	}
	// An exit carries the line that returned, not the one that names the
	// function: the innermost open call of that name is meant. Calls that
	// began before tracing have none.
	name := string(cBytes(r.Func[:]))
	for i := len(open) - 1; i >= 0; i-- {
		if p.names[open[i]] == name {
			e.Func = open[i]
			e.SP = -uint64(8 * (i + 1))
			p.open[e.TID] = open[:i]
			return true
		}
	}
	return false
}

func (p *pythonCalls) id(r *bpf.TracePythonEvent) trace.FuncID {
	k := pythonKey{line: r.Line}
	copy(k.file[:], cBytes(r.File[:]))
	copy(k.name[:], cBytes(r.Func[:]))
	if id, ok := p.ids[k]; ok {
		return id
	}
	f := PythonFunc{Name: cString(r.Func[:]), File: cString(r.File[:]), Line: int(r.Line)}
	if len(p.ids) >= maxPythonFuncs {
		f = PythonFunc{Name: "(other Python functions)"}
		k = pythonKey{}
		if id, ok := p.ids[k]; ok {
			return id
		}
	}
	id := p.intern(f)
	p.ids[k] = id
	p.names[id] = f.Name
	return id
}

// forget drops the state of a thread that ended.
func (p *pythonCalls) forget(tid uint32) {
	delete(p.open, tid)
	delete(p.last, tid)
}

func cBytes(b []byte) []byte {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return b[:i]
	}
	return b
}
