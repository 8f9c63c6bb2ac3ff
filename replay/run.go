package replay

import (
	"math"

	"github.com/sbxtrace/sbxtrace/recording"
	"github.com/sbxtrace/sbxtrace/trace"
)

// Options say what of a recording is played.
type Options struct {
	// From and To bound the time, ns CLOCK_MONOTONIC. Calls that are open at
	// From are entered first, those open at To are left as still open. 0:
	// from the beginning, to the end.
	From, To uint64
	// Pace is called with the time of each item before it is played; it may
	// wait. Its error ends the replay. Nil: as fast as it goes.
	Pace func(t uint64) error
}

// Run plays f into sink, and returns the player at the end.
func Run(f *recording.File, sink trace.Sink, o Options) (*Player, error) {
	p := NewPlayer(f, sink)
	return p, p.Run(o)
}

// Run plays what o says. It comes once, before anything else was played.
func (p *Player) Run(o Options) error {
	if o.From > 0 {
		if err := p.Seek(o.From); err != nil {
			return err
		}
		p.orphans = p.pairer.Orphans
		if !p.quiet {
			p.pairer.Announce()
		}
	}
	to := o.To
	if to == 0 {
		to = math.MaxUint64
	}
	err := p.playTo(to, o.Pace)
	if o.To > p.now {
		p.now = min(o.To, p.last())
	}
	p.Finish(p.now)
	return err
}

// last is the latest time of the recording.
func (p *Player) last() uint64 {
	_, last := p.file.Span()
	return last
}
