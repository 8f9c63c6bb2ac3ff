package replay

import (
	"errors"
	"fmt"
	"slices"

	"github.com/sbxtrace/sbxtrace/recording"
	"github.com/sbxtrace/sbxtrace/trace"
)

// ErrBoots says that recordings cannot be merged because their times cannot be
// compared.
var ErrBoots = errors.New("the recordings are of different machines or boots: their times cannot be compared")

// Merge records what all of files have, in the order of time, in store, and
// closes it. The files are of one machine and one boot, else the error is
// ErrBoots. Calls of threads that are in several of them are nested by their
// stack pointers.
func Merge(files []*recording.File, store recording.Store) error {
	for _, f := range files[1:] {
		if f.Session.Boot != files[0].Session.Boot {
			return errors.Join(ErrBoots, store.Close())
		}
	}
	m := &merger{functions: make(map[trace.Func]trace.FuncID)}
	m.pairer = trace.NewPairer((*relay)(&Player{quiet: true}), m.region)
	var state trace.Snapshot
	for _, f := range files {
		s := &source{p: NewPlayer(f, nil), ids: make(map[trace.FuncID]trace.FuncID)}
		m.sources = append(m.sources, s)
		m.names.others = append(m.names.others, &s.p.names)
		if err := s.advance(); err != nil {
			return errors.Join(err, store.Close())
		}
		m.add(&state, s)
	}
	m.pairer.Restore(&state)

	wall := func() int64 { w, _ := files[0].Wall(m.now); return w }
	w, err := recording.NewWriter(store, recording.Options{
		Session: mergedSession(files), Functions: &m.names, Process: m.names.process, Frame: m.names.frame, Wall: wall,
	})
	if err != nil {
		return err
	}
	m.w = w
	w.Begin(m.pairer)
	err = m.run()
	m.pairer.Finish(m.now)
	w.Finish(m.now)
	if err == nil {
		err = m.sums(files)
	}
	return errors.Join(err, w.Close())
}

func mergedSession(files []*recording.File) recording.Session {
	s := files[0].Session
	s.Targets, s.Modules = slices.Clone(s.Targets), slices.Clone(s.Modules)
	for _, f := range files[1:] {
		for _, t := range f.Session.Targets {
			if !slices.ContainsFunc(s.Targets, func(p recording.Process) bool { return p.PID == t.PID }) {
				s.Targets = append(s.Targets, t)
			}
		}
		for _, m := range f.Session.Modules {
			if !slices.Contains(s.Modules, m) {
				s.Modules = append(s.Modules, m)
			}
		}
	}
	s.Notes = append(s.Notes, fmt.Sprintf("merged from %d recordings", len(files)))
	return s
}

// merger plays several recordings into one pairer.
type merger struct {
	sources   []*source
	pairer    *trace.Pairer
	w         *recording.Writer
	names     Names
	functions map[trace.Func]trace.FuncID // without ID
	regions   []recording.Item
	now       uint64
}

// source is one of the recordings.
type source struct {
	p       *Player
	ids     map[trace.FuncID]trace.FuncID // of the merged recording
	next    *recording.Item               // nil: none is left
	regions []recording.Item              // answers that the next event needs
}

// advance goes to the next item that has a time.
func (s *source) advance() error {
	s.regions = s.regions[:0]
	for {
		item, err := s.p.Peek()
		if err != nil || item == nil {
			s.next = nil
			return err
		}
		s.p.next = nil
		if item.Kind != recording.ItemRegion {
			s.next = item
			return nil
		}
		s.regions = append(s.regions, *item)
	}
}

// id numbers a function of s in the merged recording.
func (m *merger) id(s *source, id trace.FuncID) trace.FuncID {
	if to, ok := s.ids[id]; ok {
		return to
	}
	f := *s.p.names.Func(id)
	f.ID = 0
	to, ok := m.functions[f]
	if !ok {
		to = trace.FuncID(len(m.functions))
		m.functions[f] = to
		f.ID = to
		m.names.AddFunctions([]trace.Func{f})
	}
	s.ids[id] = to
	return to
}

// add adds the calls that are open at the beginning of s to a state.
func (m *merger) add(state *trace.Snapshot, s *source) {
	var own trace.Snapshot
	s.p.pairer.Snapshot(&own)
	state.Comms = append(state.Comms, own.Comms...)
	for _, l := range own.Lanes {
		for i := range l.Open {
			c := &l.Open[i]
			c.Func, c.Parent = m.id(s, c.Func), m.id(s, c.Parent)
		}
		same := func(x trace.LaneState) bool {
			return x.PID == l.PID && x.KeyTID == l.KeyTID && x.GoID == l.GoID && x.GoStack == l.GoStack
		}
		if i := slices.IndexFunc(state.Lanes, same); i >= 0 {
			state.Lanes[i].Open = nest(append(state.Lanes[i].Open, l.Open...))
			continue
		}
		state.Lanes = append(state.Lanes, l)
	}
}

// nest orders the open calls of one thread from several recordings.
func nest(open []trace.CallState) []trace.CallState {
	slices.SortStableFunc(open, func(a, b trace.CallState) int {
		switch {
		case a.Start < b.Start:
			return -1
		case a.Start > b.Start:
			return 1
		}
		return 0
	})
	for i := range open {
		open[i].Depth = int32(i)
		if i > 0 {
			open[i].Parent = open[i-1].Func
		}
	}
	return open
}

func (m *merger) region(pid uint32, _ uint64) (trace.Region, bool) {
	for i := range m.regions {
		if m.regions[i].RegionPID == pid {
			r := m.regions[i].Region
			m.regions = slices.Delete(m.regions, i, i+1)
			m.w.Region(pid, r)
			return r, true
		}
	}
	return trace.Region{}, false
}

// run plays the earliest item of all again and again.
func (m *merger) run() error {
	for {
		var s *source
		for _, x := range m.sources {
			if x.next != nil && (s == nil || timeOf(x.next) < timeOf(s.next)) {
				s = x
			}
		}
		if s == nil {
			return nil
		}
		m.play(s)
		if err := s.advance(); err != nil {
			return err
		}
	}
}

func (m *merger) play(s *source) {
	item := s.next
	m.now = max(m.now, timeOf(item))
	switch item.Kind {
	case recording.ItemEvent:
		e := &item.Event
		switch e.Kind {
		case trace.KindEntry, trace.KindExit, trace.KindUSDT, trace.KindDetached:
			e.Func = m.id(s, e.Func)
		}
		m.regions = append(m.regions[:0], s.regions...)
		m.pairer.Event(e)
		m.w.Event(e)
	case recording.ItemTick:
		m.pairer.Tick(item.Time)
		m.w.Tick(item.Time)
	case recording.ItemMark:
		m.w.Mark(item.Mark)
	}
}

// sums merges the sums of all.
func (m *merger) sums(files []*recording.File) error {
	var all recording.Rows
	at := make(map[trace.FuncID]int)
	for i, f := range files {
		sums, err := f.Sums()
		if err != nil {
			return err
		}
		if sums == nil {
			continue
		}
		s := m.sources[i]
		s.p.names.AddFunctions(sums.Functions)
		if all.First == 0 || sums.First < all.First {
			all.First = sums.First
		}
		all.Last = max(all.Last, sums.Last)
		for _, r := range sums.Rows {
			r.Func = m.id(s, r.Func)
			if j, ok := at[r.Func]; ok {
				all.Rows[j].Merge(&r)
				continue
			}
			at[r.Func] = len(all.Rows)
			all.Rows = append(all.Rows, r)
		}
	}
	if all.Rows != nil {
		m.w.Rows(all.Rows, all.First, all.Last)
	}
	return nil
}
