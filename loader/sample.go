package loader

import (
	"unsafe"

	"github.com/sbxtrace/sbxtrace/bpf"
	"github.com/sbxtrace/sbxtrace/trace"
)

// decodeSample fills e from a record of the ring if it is a sample. Slices of e
// alias raw.
func decodeSample(raw []byte, e *trace.Event, names *commNames) bool {
	const head = unsafe.Offsetof(bpf.ProfileSampleEvent{}.Stack)
	if len(raw) < int(head) {
		return false
	}
	// Only the fields before Stack are certain to be there.
	s := (*bpf.ProfileSampleEvent)(unsafe.Pointer(&raw[0]))
	user, python, kernel := int(s.User), int(s.Python), int(s.Kernel)
	if trace.Kind(s.H.Kind) != trace.KindSample || len(raw) < int(head)+8*(user+python+kernel) {
		return false
	}
	*e = trace.Event{
		Kind: trace.KindSample, Time: s.H.Time, PID: s.H.Pid, TID: s.H.Tid, Flags: trace.Flags(s.H.Flags),
		GoID: s.Goid, GoLabels: s.Labels, Count: s.Count, Weight: s.Weight, StackID: s.Id, CPU: int32(s.Cpu), Cut: trace.Cut(s.Cut), Comm: names.name(&s.Comm),
	}
	if n := user + python + kernel; n > 0 {
		stack := unsafe.Slice((*uint64)(unsafe.Pointer(&raw[head])), n)
		e.Stack, e.Python, e.Kernel = stack[:user:user], stack[user:user+python:user+python], stack[user+python:]
	}
	return true
}

// commNames makes each thread name a string once.
type commNames map[[16]uint8]string

// maxComms bounds the names kept, for programs that make up ever new ones.
const maxComms = 1 << 14

func (c *commNames) name(comm *[16]uint8) string {
	if s, ok := (*c)[*comm]; ok {
		return s
	}
	if *c == nil || len(*c) >= maxComms {
		*c = make(commNames)
	}
	s := cString(comm[:])
	(*c)[*comm] = s
	return s
}
