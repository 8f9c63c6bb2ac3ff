package exporter

import (
	"io"

	"github.com/sbxtrace/sbxtrace/internal/term"
	"github.com/sbxtrace/sbxtrace/trace"
)

// Numbers of fields of Perfetto's messages (protos/perfetto/trace in its
// sources; testdata/perfetto.proto has those that are used).
const (
	perfTracePacket = 1

	perfTimestamp     = 8
	perfSequence      = 10
	perfTrackEvent    = 11
	perfInterned      = 12
	perfSequenceFlags = 13
	perfClockSnapshot = 6
	perfDefaults      = 59
	perfTrack         = 60

	perfClocks       = 1
	perfPrimaryClock = 2
	perfClockID      = 1
	perfClockTime    = 2
	perfDefaultClock = 58

	perfTrackUUID    = 1
	perfTrackName    = 2
	perfTrackProcess = 3
	perfTrackThread  = 4
	perfTrackParent  = 5

	perfEventCategory = 3
	perfEventArg      = 4
	perfEventType     = 9
	perfEventName     = 10
	perfEventTrack    = 11
	perfEventSource   = 34

	perfArgUint    = 3
	perfArgString  = 6
	perfArgPointer = 7
	perfArgName    = 10

	perfInternedCategory = 1
	perfInternedName     = 2
	perfInternedSource   = 4
)

// Values of Perfetto's enumerations.
const (
	perfRealtime  = 1
	perfMonotonic = 3

	perfSliceBegin = 1
	perfSliceEnd   = 2
	perfInstant    = 3

	perfStateCleared = 1
	perfNeedsState   = 2
)

// perfetto writes Perfetto's trace format: a track per thread or goroutine, a
// slice per call, instants for everything else. Names are sent once each.
type perfetto struct {
	callOutput
	names
	opt     CallOptions
	tracks  map[laneKey]uint64
	pids    map[uint32]uint64
	uuids   uint64
	strings map[string]uint64 // interned names of events
	sources map[perfSource]uint64
	known   trace.ByFunc[perfFunc]
	modules map[string]uint64
	lanes   map[laneKey]*perfLane
	fresh   []byte // interned data for the next packet
	global  uint64 // track of what belongs to no thread
	begun   bool
}

type perfSource struct {
	file string
	line int
}

// perfLane are the open slices of a track, the outermost first.
type perfLane struct {
	track uint64
	open  []perfSlice
}

// perfSlice is a slice that has begun. Slices of a track end innermost first:
// one that ends before a callee's, because its function was detached or it is of
// a coroutine, waits for it.
type perfSlice struct {
	start uint64
	fn    trace.FuncID
	depth int32
	ended bool
	args  []byte // of its end
}

// perfFunc are the interned ids of a function's name, module and source.
type perfFunc struct{ name, category, source uint64 }

func newPerfetto(w io.Writer, fns trace.Functions, opt CallOptions) *perfetto {
	return &perfetto{
		callOutput: callOutput{w: w}, names: names{fns}, opt: opt, tracks: make(map[laneKey]uint64), pids: make(map[uint32]uint64),
		strings: make(map[string]uint64), sources: make(map[perfSource]uint64), modules: make(map[string]uint64), lanes: make(map[laneKey]*perfLane),
	}
}

// Close writes what is buffered. A trace without events has its first packet.
func (p *perfetto) Close() error {
	p.start(0)
	p.drain()
	return p.err
}

// Tick implements trace.Sink.
func (p *perfetto) Tick(uint64) {}

// Enter implements trace.Sink.
func (p *perfetto) Enter(l *trace.Lane, c *trace.Call) {
	p.start(c.Start)
	k := keyOf(l)
	lane := p.lanes[k]
	if lane == nil {
		lane = &perfLane{track: p.track(k, l.Comm)}
		p.lanes[k] = lane
	}
	lane.open = append(lane.open, perfSlice{start: c.Start, fn: c.Func, depth: c.Depth})
	f := p.function(c.Func)
	p.event(c.Start, perfSliceBegin, lane.track, func(b []byte) []byte {
		b = appendVarintField(b, perfEventName, f.name)
		if f.category != 0 {
			b = appendVarintField(b, perfEventCategory, f.category)
		}
		if f.source != 0 {
			b = appendVarintField(b, perfEventSource, f.source)
		}
		for i := range int(c.NArgs) {
			b = appendMessageField(b, perfEventArg, func(b []byte) []byte {
				b = appendBytesField(b, perfArgName, argNames[i])
				return appendVarintField(b, perfArgPointer, c.Args[i])
			})
		}
		return b
	})
}

var argNames = [...]string{"arg0", "arg1", "arg2", "arg3", "arg4", "arg5"}

// Leave implements trace.Sink.
func (p *perfetto) Leave(l *trace.Lane, c *trace.Call) {
	k := keyOf(l)
	lane := p.lanes[k]
	if lane == nil {
		return
	}
	at := len(lane.open) - 1
	for at >= 0 && (lane.open[at].ended || lane.open[at].start != c.Start || lane.open[at].depth != c.Depth || lane.open[at].fn != c.Func) {
		at--
	}
	if at < 0 {
		return // it was not entered, such as one inherited by fork
	}
	s := &lane.open[at]
	s.ended, s.args = true, appendEndArgs(s.args[:0], c)
	for at = len(lane.open) - 1; at >= 0 && lane.open[at].ended; at-- {
		p.event(c.Last, perfSliceEnd, lane.track, func(b []byte) []byte { return append(b, lane.open[at].args...) })
	}
	if lane.open = lane.open[:at+1]; at < 0 {
		delete(p.lanes, k)
	}
}

// appendEndArgs appends what is known of a call's end.
func appendEndArgs(b []byte, c *trace.Call) []byte {
	if c.HasRet {
		b = appendMessageField(b, perfEventArg, func(b []byte) []byte {
			b = appendBytesField(b, perfArgName, "ret")
			return appendVarintField(b, perfArgPointer, c.Ret)
		})
	}
	if c.End != trace.EndReturn {
		b = appendPerfString(b, "end", c.End.String())
	}
	if c.Gap {
		b = appendPerfString(b, "gap", "events were lost while it was open")
	}
	return b
}

func appendPerfString(b []byte, name, value string) []byte {
	return appendMessageField(b, perfEventArg, func(b []byte) []byte {
		return appendBytesField(appendBytesField(b, perfArgName, name), perfArgString, value)
	})
}

// Event implements trace.Sink.
func (p *perfetto) Event(e *trace.Event) {
	name, args := eventText(p.names, e)
	if name == "" {
		return
	}
	p.start(e.Time)
	track := p.global
	if e.Kind != trace.KindLost && e.Kind != trace.KindDetached {
		track = p.track(keyOfEvent(e), "")
	}
	id := p.intern(p.strings, perfInternedName, name)
	p.event(e.Time, perfInstant, track, func(b []byte) []byte {
		b = appendVarintField(b, perfEventName, id)
		for _, a := range args {
			b = appendPerfString(b, a[0], a[1])
		}
		return b
	})
}

// start writes the first packets: which clock times are of, and a track for what
// belongs to no thread.
func (p *perfetto) start(now uint64) {
	if p.begun {
		return
	}
	p.begun = true
	p.packet(func(b []byte) []byte {
		b = appendMessageField(b, perfClockSnapshot, func(b []byte) []byte {
			b = appendClock(b, perfMonotonic, now)
			if p.opt.Wall != 0 {
				b = appendClock(b, perfRealtime, now+uint64(p.opt.Wall))
			}
			return appendVarintField(b, perfPrimaryClock, perfMonotonic)
		})
		b = appendVarintField(b, perfSequenceFlags, perfStateCleared)
		return appendMessageField(b, perfDefaults, func(b []byte) []byte {
			return appendVarintField(b, perfDefaultClock, perfMonotonic)
		})
	})
	p.uuids++
	p.global = p.uuids
	p.descriptor(func(b []byte) []byte {
		return appendBytesField(appendVarintField(b, perfTrackUUID, p.global), perfTrackName, "sbxtrace")
	})
}

func appendClock(b []byte, clock, now uint64) []byte {
	return appendMessageField(b, perfClocks, func(b []byte) []byte {
		return appendVarintField(appendVarintField(b, perfClockID, clock), perfClockTime, now)
	})
}

// packet appends a packet of the one sequence.
func (p *perfetto) packet(fill func(b []byte) []byte) {
	p.buf = appendMessageField(p.buf, perfTracePacket, func(b []byte) []byte {
		return fill(appendVarintField(b, perfSequence, 1))
	})
	p.spill()
}

// event appends an event, with the names that it is the first to use.
func (p *perfetto) event(now uint64, kind, track uint64, fill func(b []byte) []byte) {
	p.packet(func(b []byte) []byte {
		b = appendVarintField(b, perfTimestamp, now)
		b = appendVarintField(b, perfSequenceFlags, perfNeedsState)
		if len(p.fresh) > 0 {
			b = appendBytesField(b, perfInterned, p.fresh)
			p.fresh = p.fresh[:0]
		}
		return appendMessageField(b, perfTrackEvent, func(b []byte) []byte {
			b = appendVarintField(b, perfEventType, kind)
			return fill(appendVarintField(b, perfEventTrack, track))
		})
	})
}

func (p *perfetto) descriptor(fill func(b []byte) []byte) {
	p.packet(func(b []byte) []byte { return appendMessageField(b, perfTrack, fill) })
}

// track returns the track of a thread or goroutine, described when it first
// appears. Goroutines are tracks of their process, since there they are not
// bound to threads.
func (p *perfetto) track(k laneKey, comm string) uint64 {
	if id, ok := p.tracks[k]; ok {
		return id
	}
	process := p.process(k.pid)
	if len(p.tracks) >= maxLanes {
		clear(p.tracks) // who comes again gets another track
	}
	p.uuids++
	id := p.uuids
	p.tracks[k] = id
	p.descriptor(func(b []byte) []byte {
		b = appendVarintField(b, perfTrackUUID, id)
		b = appendVarintField(b, perfTrackParent, process)
		if k.goid != 0 {
			return appendBytesField(b, perfTrackName, laneName(k, ""))
		}
		return appendMessageField(b, perfTrackThread, func(b []byte) []byte {
			b = appendVarintField(appendVarintField(b, 1, uint64(k.pid)), 2, uint64(k.tid))
			if comm = term.Clean(comm); comm != "" {
				b = appendBytesField(b, 5, comm)
			}
			return b
		})
	})
	return id
}

// process returns the track of a process.
func (p *perfetto) process(pid uint32) uint64 {
	if id, ok := p.pids[pid]; ok {
		return id
	}
	p.uuids++
	id := p.uuids
	p.pids[pid] = id
	p.descriptor(func(b []byte) []byte {
		b = appendVarintField(b, perfTrackUUID, id)
		return appendMessageField(b, perfTrackProcess, func(b []byte) []byte {
			b = appendVarintField(b, 1, uint64(pid))
			if name := processName(&p.opt, pid); name != "" {
				b = appendBytesField(b, 6, name)
			}
			return b
		})
	})
	return id
}

// function returns the interned ids of a function.
func (p *perfetto) function(id trace.FuncID) *perfFunc {
	f := p.known.Get(id)
	if f == nil {
		fn := p.of(id)
		f = &perfFunc{name: p.intern(p.strings, perfInternedName, fn.Name)}
		if m := module(&fn); m != "" {
			f.category = p.intern(p.modules, perfInternedCategory, m)
		}
		if fn.File != "" {
			f.source = p.source(perfSource{fn.File, fn.Line}, fn.Name)
		}
		p.known.Set(id, f)
	}
	return f
}

// intern returns the id of a string, which is sent with the next event when it is
// new.
func (p *perfetto) intern(table map[string]uint64, field int, s string) uint64 {
	if id, ok := table[s]; ok {
		return id
	}
	id := uint64(len(table)) + 1
	table[s] = id
	p.fresh = appendMessageField(p.fresh, field, func(b []byte) []byte {
		return appendBytesField(appendVarintField(b, 1, id), 2, toUTF8(s))
	})
	return id
}

func (p *perfetto) source(s perfSource, function string) uint64 {
	if id, ok := p.sources[s]; ok {
		return id
	}
	id := uint64(len(p.sources)) + 1
	p.sources[s] = id
	p.fresh = appendMessageField(p.fresh, perfInternedSource, func(b []byte) []byte {
		b = appendBytesField(appendVarintField(b, 1, id), 2, toUTF8(s.file))
		b = appendBytesField(b, 3, toUTF8(function))
		return appendVarintField(b, 4, uint64(max(s.line, 0)))
	})
	return id
}
