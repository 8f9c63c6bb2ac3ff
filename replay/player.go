// Package replay goes through recordings as the live path goes through events:
// the same pairing, the same sinks, so that what was printed live is printed
// again. It replays events, not the execution of the program.
package replay

import (
	"fmt"
	"strconv"

	"github.com/sbxtrace/sbxtrace/recording"
	"github.com/sbxtrace/sbxtrace/trace"
)

// Player goes through a recording and keeps the calls that are open. It is not
// safe for concurrent use.
type Player struct {
	file      *recording.File
	sink      trace.Sink
	quiet     bool // the sink is not told
	pairer    *trace.Pairer
	names     Names
	filter    *filtering        // nil: everything is played
	tap       *recording.Writer // records what is played; nil: nothing does
	anonymous *anonymous        // changes what is played; nil: nothing does

	block   int // number of the block being played; -1: none yet
	items   *recording.Items
	next    *recording.Item  // read and not played yet; nil: none
	regions []recording.Item // answers for the next event
	now     uint64           // time of the last item
	orphans uint64           // of the pairer before the first item
}

// NewPlayer returns a Player before the first event of f. sink may be nil.
func NewPlayer(f *recording.File, sink trace.Sink) *Player {
	p := &Player{file: f, sink: sink, quiet: sink == nil, block: -1}
	p.names.init()
	p.pairer = trace.NewPairer((*relay)(p), p.region)
	return p
}

// SetSink makes sink the one that is told from here on: for sinks that need the
// player's Names.
func (p *Player) SetSink(sink trace.Sink) { p.sink, p.quiet = sink, sink == nil }

// Names is what the recording says of functions, processes and addresses, as far
// as it has been played.
func (p *Player) Names() *Names { return &p.names }

// Lanes are the threads and goroutines with calls that are open now, in a fixed
// order; valid until the player moves.
func (p *Player) Lanes() []*trace.Lane { return p.pairer.Lanes() }

// Now is the time of the last event played, ns CLOCK_MONOTONIC.
func (p *Player) Now() uint64 { return p.now }

// Orphans counts the exits so far whose entry is not in the recording.
func (p *Player) Orphans() uint64 { return p.pairer.Orphans - min(p.orphans, p.pairer.Orphans) }

// region answers the pairer as the memory layout did when it was recorded.
func (p *Player) region(pid uint32, sp uint64) (trace.Region, bool) {
	for i := range p.regions {
		if p.regions[i].RegionPID == pid {
			r := p.regions[i].Region
			p.regions = append(p.regions[:i], p.regions[i+1:]...)
			return p.answer(pid, r)
		}
	}
	if p.filter != nil {
		if r, ok := p.filter.region(pid, sp); ok {
			return p.answer(pid, r)
		}
	}
	return trace.Region{}, false
}

// answer tells the tap of an answer for the pairer.
func (p *Player) answer(pid uint32, r trace.Region) (trace.Region, bool) {
	if p.tap != nil {
		p.tap.Region(pid, r)
	}
	return r, true
}

// Peek returns the item that Step will play; nil at the end. The item is valid
// until then.
func (p *Player) Peek() (*recording.Item, error) {
	for p.next == nil {
		if p.items != nil && p.items.Next() {
			p.next = &p.items.Item
			break
		}
		if p.items != nil {
			if err := p.items.Err(); err != nil {
				return nil, err
			}
		}
		i := p.block + 1
		if i >= len(p.file.Blocks) {
			return nil, nil
		}
		if err := p.load(i, !p.file.Follows(i)); err != nil {
			return nil, err
		}
	}
	return p.next, nil
}

// Step plays the next item and returns it; nil at the end. The item is valid
// until the next call.
func (p *Player) Step() (*recording.Item, error) {
	item, err := p.Peek()
	if item != nil {
		p.next = nil
		p.play(item)
	}
	return item, err
}

// load makes block i the present one. With restore the pairer takes its state
// over from the block's checkpoint: where playing begins, and after blocks that
// are missing.
func (p *Player) load(i int, restore bool) error {
	b, err := p.file.Block(i)
	if err != nil {
		return err
	}
	p.names.add(b)
	if restore {
		if p.items != nil {
			p.Finish(p.now) // how they went on is not known
		}
		s := b.Checkpoint
		if s == nil {
			s = new(trace.Snapshot)
		}
		if p.filter != nil {
			s = p.filter.snapshot(s, &p.names)
		}
		if p.anonymous != nil {
			p.anonymous.snapshot(s)
		}
		if p.block < 0 {
			p.orphans = s.Orphans
		}
		p.pairer.Restore(s)
		p.pairer.Announce()
		if p.tap != nil {
			p.tap.Gap()
		}
		p.regions = p.regions[:0]
	}
	p.block, p.items, p.next = i, b.Items(), nil
	return nil
}

func (p *Player) play(item *recording.Item) {
	switch item.Kind {
	case recording.ItemEvent:
		if t := item.Event.Time; t != 0 {
			p.now = t
		}
		if p.filter == nil || p.filter.event(&item.Event, &p.names) {
			p.event(&item.Event)
		}
		p.regions = p.regions[:0]
	case recording.ItemTick:
		p.pairer.Tick(item.Time)
		if p.tap != nil {
			p.tap.Tick(item.Time)
		}
	case recording.ItemRegion:
		p.regions = append(p.regions, *item)
		if p.filter != nil {
			p.filter.learn(item.RegionPID, item.Region)
		}
	case recording.ItemEnd:
		p.now = item.Time
		p.Finish(p.now)
		if p.tap != nil {
			p.tap.Finish(p.now)
		}
	case recording.ItemMark:
		if p.tap != nil {
			p.tap.Mark(p.mark(item.Mark))
		}
		if m, ok := p.sink.(MarkSink); ok && !p.quiet {
			m.Mark(&item.Mark)
		}
	}
}

// event hands an event to all who get it.
func (p *Player) event(e *trace.Event) {
	if p.anonymous != nil {
		e = p.anonymous.event(e)
	}
	p.pairer.Event(e)
	if p.tap != nil {
		p.tap.Event(e)
	}
}

// mark returns m as it is recorded again.
func (p *Player) mark(m recording.Mark) recording.Mark {
	if p.anonymous != nil {
		m.Text = ""
	}
	return m
}

// Finish closes the calls that are open at now, as the end of the recording
// does.
func (p *Player) Finish(now uint64) { p.pairer.Finish(now) }

// Seek goes to the time t, forward or back: the next item is the first that is
// later. The sink is told nothing of what lies between.
func (p *Player) Seek(t uint64) error {
	if len(p.file.Blocks) == 0 {
		return nil
	}
	quiet := p.quiet
	p.quiet = true
	defer func() { p.quiet = quiet }()
	if err := p.load(p.file.At(t), true); err != nil {
		return err
	}
	return p.playTo(t, nil)
}

// PlayTo goes to the time t as Seek does, and tells the sink of what lies between
// the beginning of so many blocks before and t.
func (p *Player) PlayTo(t uint64, before int) error {
	if len(p.file.Blocks) == 0 {
		return nil
	}
	if err := p.load(max(p.file.At(t)-before, 0), true); err != nil {
		return err
	}
	return p.playTo(t, nil)
}

// playTo plays up to the time t, included.
func (p *Player) playTo(t uint64, pace func(uint64) error) error {
	for {
		item, err := p.Peek()
		if err != nil || item == nil {
			return err
		}
		at := timeOf(item)
		if at > t {
			return nil
		}
		if pace != nil && at > 0 {
			if err := pace(at); err != nil {
				return err
			}
		}
		p.next = nil
		p.play(item)
	}
}

// timeOf is when an item came to be; 0 for those without a time.
func timeOf(item *recording.Item) uint64 {
	switch item.Kind {
	case recording.ItemEvent:
		return item.Event.Time
	case recording.ItemTick, recording.ItemEnd:
		return item.Time
	case recording.ItemMark:
		return item.Mark.Time
	}
	return 0
}

// relay is what the pairer tells the sink through.
type relay Player

func (r *relay) Enter(l *trace.Lane, c *trace.Call) {
	if !r.quiet {
		r.sink.Enter(l, c)
	}
}

func (r *relay) Leave(l *trace.Lane, c *trace.Call) {
	if !r.quiet {
		r.sink.Leave(l, c)
	}
}

func (r *relay) Event(e *trace.Event) {
	if !r.quiet {
		r.sink.Event(e)
	}
}

func (r *relay) Tick(now uint64) {
	if !r.quiet {
		r.sink.Tick(now)
	}
}

// MarkSink is a Sink that is told of marks too.
type MarkSink interface {
	trace.Sink
	Mark(m *recording.Mark)
}

// Names is what a recording says of functions, processes and addresses.
type Names struct {
	funcs     trace.ByFunc[trace.Func]
	processes map[uint32]recording.Process
	frames    map[recording.Place]recording.Frame
	others    []*Names // where else processes and addresses are looked up
}

// maxNames bounds what a hostile recording can make Names keep of each kind.
const maxNames = 4 << 20

func (n *Names) init() {
	n.processes = make(map[uint32]recording.Process)
	n.frames = make(map[recording.Place]recording.Frame)
}

// add takes over what a block says.
func (n *Names) add(b *recording.Block) {
	n.AddFunctions(b.Functions)
	for _, p := range b.Processes {
		if len(n.processes) < maxNames {
			n.processes[p.PID] = p
		}
	}
	if len(n.frames)+len(b.Frames) > maxNames {
		clear(n.frames)
	}
	for at, f := range b.Frames {
		n.frames[at] = f
	}
}

// AddFunctions adds descriptions of functions. What is known already stays: an
// id never changes its meaning.
func (n *Names) AddFunctions(fns []trace.Func) {
	for i := range fns {
		if f := &fns[i]; n.funcs.Len() < maxNames && n.funcs.Get(f.ID) == nil {
			n.funcs.Set(f.ID, f)
		}
	}
}

// Func implements trace.Functions. It is never nil.
func (n *Names) Func(id trace.FuncID) *trace.Func {
	f := n.funcs.Get(id)
	if f == nil {
		f = &trace.Func{ID: id, Name: fmt.Sprintf("func#%d", id)}
	}
	return f
}

// Process describes a process.
func (n *Names) Process(pid uint32) (recording.Process, bool) {
	p, ok := n.processes[pid]
	return p, ok
}

// Lookup describes an address of a stack.
func (n *Names) Lookup(pid uint32, addr uint64) (recording.Frame, bool) {
	f, ok := n.frames[recording.Place{PID: pid, Addr: addr}]
	return f, ok
}

// Frame appends the name of an address of a stack: it is a view.Frame.
func (n *Names) Frame(dst []byte, pid uint32, addr uint64) []byte {
	if f, ok := n.Lookup(pid, addr); ok && f.Text != "" {
		return append(dst, f.Text...)
	}
	return strconv.AppendUint(append(dst, "0x"...), addr, 16)
}
