package replay

import (
	"fmt"
	"reflect"

	"github.com/sbxtrace/sbxtrace/recording"
	"github.com/sbxtrace/sbxtrace/trace"
)

// Checked is what Verify found.
type Checked struct {
	Blocks int
	Events uint64
	Calls  uint64
	Lost   uint64
	Marks  uint64
	Wrong  []error // what is wrong, in the order of the file
}

// maxWrong bounds how many errors are kept.
const maxWrong = 100

func (c *Checked) wrong(format string, args ...any) {
	if len(c.Wrong) < maxWrong {
		c.Wrong = append(c.Wrong, fmt.Errorf(format, args...))
	}
}

// Verify reads all of a recording: checksums, contents, whether headers count
// what blocks hold, and whether each block continues in the state that playing
// the one before it ends in.
func Verify(f *recording.File) *Checked {
	c := new(Checked)
	d := &f.Damage
	if d.Truncated {
		c.wrong("the last block is not complete")
	}
	if d.Missing > 0 {
		c.wrong("blocks are missing between others: %d", d.Missing)
	}
	if d.Skipped > 0 {
		c.wrong("bytes that are in no block: %d", d.Skipped)
	}
	if d.Foreign > 0 {
		c.wrong("blocks of other recordings: %d", d.Foreign)
	}
	p := NewPlayer(f, nil)
	whole := false // the block before was played to its end
	for i := range f.Blocks {
		c.Blocks++
		whole = c.block(p, i, whole && f.Follows(i))
	}
	for range f.Rows {
		c.Blocks++
	}
	if _, err := f.Sums(); err != nil {
		c.wrong("%w", err)
	}
	return c
}

// block checks one block, which continues the one before or does not, and
// reports whether it could be read to its end.
func (c *Checked) block(p *Player, i int, continues bool) bool {
	h := &p.file.Blocks[i].Header
	var state trace.Snapshot
	p.pairer.Snapshot(&state)
	if err := p.load(i, !continues); err != nil {
		c.wrong("%w", err)
		return false
	}
	b := p.items.Block()
	if continues && b.Checkpoint != nil && !equal(&state, b.Checkpoint) {
		c.wrong("block %d begins with other calls open than the block before it ends with", h.Seq)
	}
	var got recording.Header
	for p.items.Next() {
		item := &p.items.Item
		p.play(item)
		switch item.Kind {
		case recording.ItemMark:
			got.Marks++
		case recording.ItemEvent:
			got.Events++
			switch e := &item.Event; e.Kind {
			case trace.KindEntry:
				got.Calls++
			case trace.KindLost:
				got.Lost += e.Count
			}
			if t := item.Event.Time; t != 0 && (t < h.First || t > h.Last) {
				c.wrong("block %d has an event at %d, its header ends at %d", h.Seq, t, h.Last)
			}
		}
	}
	c.Events += uint64(got.Events)
	c.Calls += uint64(got.Calls)
	c.Lost += got.Lost
	c.Marks += uint64(got.Marks)
	if err := p.items.Err(); err != nil {
		c.wrong("%w", err)
		return false
	}
	if got.Events != h.Events || got.Calls != h.Calls || got.Lost != h.Lost || got.Marks != h.Marks {
		c.wrong("block %d has %d events, %d calls, %d lost and %d marks; its header says %d, %d, %d and %d", h.Seq,
			got.Events, got.Calls, got.Lost, got.Marks, h.Events, h.Calls, h.Lost, h.Marks)
	}
	return true
}

// equal compares two states.
func equal(a, b *trace.Snapshot) bool {
	if a.Orphans != b.Orphans || len(a.Comms) != len(b.Comms) || len(a.Lanes) != len(b.Lanes) {
		return false
	}
	for i := range a.Comms {
		if a.Comms[i] != b.Comms[i] {
			return false
		}
	}
	for i := range a.Lanes {
		x, y := a.Lanes[i], b.Lanes[i]
		if len(x.Open) == 0 && len(y.Open) == 0 {
			x.Open, y.Open = nil, nil
		}
		if len(x.Stacks) == 0 && len(y.Stacks) == 0 {
			x.Stacks, y.Stacks = nil, nil
		}
		if !reflect.DeepEqual(x, y) {
			return false
		}
	}
	return true
}
