package replay

import (
	"errors"
	"fmt"
	"math"

	"github.com/sbxtrace/sbxtrace/recording"
	"github.com/sbxtrace/sbxtrace/trace"
)

// Cut records the part of f that o and filter say in store, and closes it. What
// was open before is in the new recording as open at its beginning.
func Cut(f *recording.File, store recording.Store, o Options, filter Filter) error {
	p := NewPlayer(f, nil)
	p.SetFilter(filter)
	if o.From > 0 {
		if err := p.Seek(o.From); err != nil {
			return errors.Join(err, store.Close())
		}
	}
	session := f.Session
	session.Notes = append(session.Notes, "cut")
	whole := o.From == 0 && o.To == 0
	return p.rewrite(store, session, o.To, whole, p.Names(), nil)
}

// rewrite records what the player plays up to the time to.
func (p *Player) rewrite(store recording.Store, s recording.Session, to uint64, sums bool, fns trace.Functions, a *anonymous) error {
	opt := recording.Options{Session: s, Functions: fns, Process: p.names.process, Frame: p.names.frame}
	if a != nil {
		opt.Process, opt.Frame = a.process, a.frame
	} else if _, ok := p.file.Wall(1); ok {
		opt.Wall = func() int64 { w, _ := p.file.Wall(p.now); return w }
	}
	p.anonymous = a
	if p.items == nil {
		if _, err := p.Peek(); err != nil { // restores the state at the beginning
			return errors.Join(err, store.Close())
		}
	}
	w, err := recording.NewWriter(store, opt)
	if err != nil {
		return err
	}
	w.Begin(p.pairer)
	p.tap = w
	end := to
	if to == 0 {
		end = math.MaxUint64
	}
	err = p.playTo(end, nil)
	if to != 0 {
		p.now = max(p.now, min(to, p.last()))
	}
	w.Finish(p.now) // if the recording's own end was not among it
	if err == nil && sums {
		err = p.copySums(w, a)
	}
	return errors.Join(err, w.Close())
}

func (p *Player) copySums(w *recording.Writer, a *anonymous) error {
	sums, err := p.file.Sums()
	if err != nil || sums == nil {
		return err
	}
	p.names.AddFunctions(sums.Functions)
	w.Rows(sums.Rows, sums.First, sums.Last)
	return nil
}

func (n *Names) process(pid uint32) recording.Process {
	if p, ok := n.processes[pid]; ok {
		return p
	}
	for _, o := range n.others {
		if p, ok := o.processes[pid]; ok {
			return p
		}
	}
	return recording.Process{}
}

func (n *Names) frame(pid uint32, addr uint64) recording.Frame {
	at := recording.Place{PID: pid, Addr: addr}
	if f, ok := n.frames[at]; ok {
		return f
	}
	for _, o := range n.others {
		if f, ok := o.frames[at]; ok {
			return f
		}
	}
	return recording.Frame{}
}

// AnonymizeOptions say what may stay as it is.
type AnonymizeOptions struct {
	KeepFunctions bool // names of functions and the base names of their files
}

// Anonymize records f in store without what tells whose it is, and closes it:
// names, paths, command lines, arguments, return values, addresses, the machine
// and the date. Times, nesting, threads and losses stay.
func Anonymize(f *recording.File, store recording.Store, o AnonymizeOptions) error {
	p := NewPlayer(f, nil)
	a := newAnonymous(o, &p.names)
	return p.rewrite(store, a.session(f.Session), 0, true, a, a)
}

// anonymous gives things names that tell nothing, the same thing always the same.
type anonymous struct {
	o       AnonymizeOptions
	names   *Names
	funcs   trace.ByFunc[trace.Func]
	known   map[string]map[string]string // by kind: names and their replacements
	addrs   map[uint64]uint64            // addresses of stacks: what stands for them
	were    []uint64                     // and back
	scratch trace.Event
}

func newAnonymous(o AnonymizeOptions, names *Names) *anonymous {
	return &anonymous{o: o, names: names, known: make(map[string]map[string]string), addrs: make(map[uint64]uint64)}
}

// alias replaces a name of some kind.
func (a *anonymous) alias(kind, name string) string {
	if name == "" {
		return ""
	}
	m := a.known[kind]
	if m == nil {
		m = make(map[string]string)
		a.known[kind] = m
	}
	s, ok := m[name]
	if !ok {
		s = fmt.Sprintf("%s%d", kind, len(m)+1)
		m[name] = s
	}
	return s
}

func (a *anonymous) session(s recording.Session) recording.Session {
	return recording.Session{
		Tool: s.Tool, OS: s.OS, Arch: s.Arch, CPUs: s.CPUs, Level: s.Level, Ring: s.Ring,
		Notes: append(s.Notes, "anonymized"),
	}
}

// module replaces the path of a file, or keeps its base name.
func (a *anonymous) module(path string) string {
	if a.o.KeepFunctions {
		return base(path)
	}
	return a.alias("file", path)
}

// Func implements trace.Functions.
func (a *anonymous) Func(id trace.FuncID) *trace.Func {
	if f := a.funcs.Get(id); f != nil {
		return f
	}
	was := a.names.Func(id)
	f := &trace.Func{ID: id, Name: was.Name, Path: a.module(was.Path), Size: was.Size, Lang: was.Lang}
	if !a.o.KeepFunctions {
		f.Name = a.alias("function", was.Path+"\x00"+was.Name)
	}
	if was.Module != "" {
		f.Module = f.Path
	}
	a.funcs.Set(id, f)
	return f
}

func (a *anonymous) process(pid uint32) recording.Process {
	p := a.names.process(pid)
	return recording.Process{Parent: p.Parent, Exe: a.module(p.Exe)}
}

func (a *anonymous) frame(pid uint32, addr uint64) recording.Frame {
	if addr == 0 || addr > uint64(len(a.were)) {
		return recording.Frame{}
	}
	was := a.names.frame(pid, a.were[addr-1])
	f := recording.Frame{Func: was.Func, Module: a.module(was.Module)}
	if !a.o.KeepFunctions && was.Func != "" {
		f.Func = a.alias("function", was.Module+"\x00"+was.Func)
	}
	if f.Text = f.Func; f.Text == "" {
		f.Text = f.Module
	}
	return f
}

// event returns e without what may be secret. Addresses of stacks become small
// numbers, the same for the same.
func (a *anonymous) event(e *trace.Event) *trace.Event {
	out := &a.scratch
	stack := out.Stack[:0]
	*out = *e
	out.Args, out.Ret, out.Unread, out.Texts, out.Kernel = nil, 0, 0, nil, nil
	out.Flags &^= trace.FlagReturn
	out.Comm = a.alias("thread", e.Comm)
	for _, addr := range e.Stack {
		stack = append(stack, a.addr(addr))
	}
	out.Stack = stack
	return out
}

// addr replaces an address.
func (a *anonymous) addr(addr uint64) uint64 {
	to, ok := a.addrs[addr]
	if !ok {
		a.were = append(a.were, addr)
		to = uint64(len(a.were))
		a.addrs[addr] = to
	}
	return to
}

// snapshot takes out of a state what may be secret.
func (a *anonymous) snapshot(s *trace.Snapshot) {
	for i := range s.Comms {
		s.Comms[i].Comm = a.alias("thread", s.Comms[i].Comm)
	}
	for i := range s.Lanes {
		l := &s.Lanes[i]
		l.Comm = a.alias("thread", l.Comm)
		for j := range l.Open {
			c := &l.Open[j]
			c.NArgs, c.Args = 0, [6]uint64{}
		}
	}
}

// base is the last element of a path.
func base(path string) string {
	for i := len(path) - 1; i >= 0; i-- {
		if path[i] == '/' {
			return path[i+1:]
		}
	}
	return path
}
