package recording

import (
	"encoding/binary"

	"github.com/sbxtrace/sbxtrace/trace"
)

// Bits of a call in a checkpoint.
const (
	callRecursive = 1 << iota
	callGap
	callInherited
)

// appendCheckpoint appends a pairer's state.
func appendCheckpoint(dst []byte, s *trace.Snapshot, strings *stringTable) []byte {
	dst = binary.AppendUvarint(dst, s.Orphans)
	dst = binary.AppendUvarint(dst, uint64(len(s.Comms)))
	for _, c := range s.Comms {
		dst = binary.AppendUvarint(dst, uint64(c.TID))
		dst = binary.AppendUvarint(dst, strings.add(c.Comm))
	}
	dst = binary.AppendUvarint(dst, uint64(len(s.Lanes)))
	for i := range s.Lanes {
		dst = appendLane(dst, &s.Lanes[i], strings)
	}
	return dst
}

func appendLane(dst []byte, l *trace.LaneState, strings *stringTable) []byte {
	dst = binary.AppendUvarint(dst, uint64(l.PID))
	dst = binary.AppendUvarint(dst, uint64(l.KeyTID))
	dst = binary.AppendUvarint(dst, l.GoID)
	dst = append(dst, bit(l.GoStack, 1))
	dst = binary.AppendUvarint(dst, uint64(l.TID))
	dst = binary.AppendUvarint(dst, strings.add(l.Comm))
	dst = binary.AppendUvarint(dst, uint64(l.Serial))
	dst = appendStack(dst, &l.Current)
	dst = binary.AppendUvarint(dst, uint64(len(l.Stacks)))
	for i := range l.Stacks {
		dst = appendStack(dst, &l.Stacks[i])
	}
	dst = binary.AppendUvarint(dst, uint64(len(l.Open)))
	var time, sp uint64
	for i := range l.Open {
		c := &l.Open[i]
		dst = binary.AppendVarint(dst, int64(c.Start-time))
		dst = binary.AppendVarint(dst, int64(c.SP-sp))
		time, sp = c.Start, c.SP
		dst = binary.AppendUvarint(dst, c.Child)
		dst = binary.AppendUvarint(dst, uint64(c.Func))
		dst = binary.AppendUvarint(dst, uint64(c.Parent))
		dst = binary.AppendUvarint(dst, uint64(max(c.Depth, 0)))
		dst = binary.AppendUvarint(dst, uint64(c.TID))
		dst = binary.AppendUvarint(dst, uint64(c.Flags))
		dst = binary.AppendUvarint(dst, uint64(c.Group))
		dst = binary.AppendUvarint(dst, uint64(c.Stack))
		dst = append(dst, bit(c.Recursive, callRecursive)|bit(c.Gap, callGap)|bit(c.Inherited, callInherited), c.NArgs)
		for _, a := range c.Args[:min(int(c.NArgs), len(c.Args))] {
			dst = binary.AppendUvarint(dst, a)
		}
	}
	return dst
}

func appendStack(dst []byte, s *trace.StackState) []byte {
	dst = binary.AppendUvarint(dst, s.Lo)
	dst = binary.AppendUvarint(dst, s.Hi-s.Lo)
	dst = binary.AppendUvarint(dst, uint64(s.Serial))
	return append(dst, bit(s.Shared, 1))
}

func bit(on bool, b byte) byte {
	if on {
		return b
	}
	return 0
}

// parseCheckpoint reads a pairer's state; nil if there is none.
func parseCheckpoint(b []byte, strings []string) (*trace.Snapshot, error) {
	if len(b) == 0 {
		return nil, nil
	}
	c := cursor{b: b, what: "checkpoint"}
	if len(b) > maxState {
		c.fail("%d bytes", len(b))
		return nil, c.err
	}
	s := &trace.Snapshot{Orphans: c.uint()}
	s.Comms = make([]trace.ThreadName, c.count(maxTable, 2))
	for i := range s.Comms {
		s.Comms[i] = trace.ThreadName{TID: c.uint32(), Comm: c.string(strings)}
	}
	s.Lanes = make([]trace.LaneState, c.count(maxTable, 13))
	for i := range s.Lanes {
		parseLane(&c, &s.Lanes[i], strings)
	}
	return s, c.done()
}

func parseLane(c *cursor, l *trace.LaneState, strings []string) {
	l.PID, l.KeyTID, l.GoID, l.GoStack = c.uint32(), c.uint32(), c.uint(), c.byte()&1 != 0
	l.TID, l.Comm, l.Serial = c.uint32(), c.string(strings), c.uint32()
	l.Current = parseStack(c)
	if n := c.count(maxTable, 4); n > 0 {
		l.Stacks = make([]trace.StackState, n)
	}
	for i := range l.Stacks {
		l.Stacks[i] = parseStack(c)
	}
	if n := c.count(maxState, 12); n > 0 {
		l.Open = make([]trace.CallState, n)
	}
	var time, sp uint64
	for i := range l.Open {
		o := &l.Open[i]
		time += uint64(c.int())
		sp += uint64(c.int())
		o.Start, o.Last, o.SP, o.Child = time, time, sp, c.uint()
		o.Func, o.Parent = trace.FuncID(c.uint32()), trace.FuncID(c.uint32())
		o.Depth, o.TID = int32(c.upTo(1<<31-1)), c.uint32()
		o.Flags, o.Group, o.Stack = trace.Flags(c.upTo(1<<16-1)), uint16(c.upTo(1<<16-1)), c.uint32()
		bits := c.byte()
		o.Recursive, o.Gap, o.Inherited = bits&callRecursive != 0, bits&callGap != 0, bits&callInherited != 0
		if o.NArgs = c.byte(); int(o.NArgs) > len(o.Args) {
			c.fail("%d arguments", o.NArgs)
			o.NArgs = 0
		}
		for j := range o.NArgs {
			o.Args[j] = c.uint()
		}
	}
}

func parseStack(c *cursor) trace.StackState {
	s := trace.StackState{Lo: c.uint()}
	s.Hi = s.Lo + c.uint()
	s.Serial, s.Shared = c.uint32(), c.byte()&1 != 0
	return s
}
