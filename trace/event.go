// Package trace is the vocabulary that all rooms share: events as the kernel
// sent them, calls as pairing made them, and the streams they travel in. It is
// pure: no I/O, no clock, no kernel; the same events give the same calls.
package trace

// Kind says what an Event reports. The values are those of enum event_kind in
// bpf/events.h and are stored in recordings: append only.
type Kind uint8

// Kinds of events.
const (
	KindInvalid     Kind = iota
	KindEntry            // a traced function was entered
	KindExit             // a traced function returned
	KindFork             // a task was created: Child is its id; a thread when ChildPID == PID
	KindExec             // the process replaced its program
	KindTaskExit         // a thread ended
	KindGoExit           // a goroutine ended
	KindMap              // an executable file mapping appeared (dlopen)
	KindUSDT             // a static probe fired
	KindLost             // events could not be delivered: see Count, CPU, Cause
	KindProcessExit      // the last thread of a process ended
	KindDetached         // the overhead governor took Func's probes out; Count is its calls per second
	KindComm             // the thread is called Comm
	KindSample           // a sample: see Stack, Kernel, Weight, Cut
	KindCandidate        // a process that is no target may have become one: see tracer.Options.Joins
)

// Flags qualify an Event. The values are those of enum event_flags in
// bpf/events.h and are stored in recordings: append only.
type Flags uint16

// Event flags.
const (
	FlagGo        Flags = 1 << iota // goroutine fields are valid and SP is relative to the stack's top
	FlagTailJumps                   // entry: the function may leave by a tail call while its exit is still reported
	FlagHooked                      // entry, exit: the exit is reported by a return probe (uretprobe), not a RET site
	FlagReturn                      // exit: Ret is valid
	FlagCutStack                    // entry: there may be more callers than Stack has
	FlagKernel                      // sample: the thread was in the kernel
	FlagWaker                       // sample: the stack of one that wakes others, see Event.Waker
	FlagInUse                       // sample: Count and Weight are of what was still allocated in the end
)

// FuncID numbers a traced function within one session, from 0.
type FuncID uint32

// Event is one record of the kernel, decoded. Slices alias the ring buffer and
// are valid only during the call that delivers the event.
type Event struct {
	Time  uint64 // ns, CLOCK_MONOTONIC
	SP    uint64 // address of the return address's slot; for FlagGo minus the stack's upper end (a negative int64)
	GoID  uint64 // goroutine number, 0 for none (native threads, g0)
	PID   uint32 // process (thread group) id in sbxtrace's pid namespace
	TID   uint32 // thread id in sbxtrace's pid namespace
	Func  FuncID // Entry, Exit, USDT
	Kind  Kind
	Flags Flags

	Ret   uint64   // Exit at level args or above: raw return register
	Args  []uint64 // Entry at level args or above: raw integer argument registers; USDT: arguments
	Stack []uint64 // Entry at level stacks: return addresses, innermost first. Sample: see there

	// A sample is whole (StackID is 0), or it is counted by its stack: an event with
	// a Count of 0 brings the stack that has the StackID, later ones count samples
	// with it and have no addresses. Waker is the StackID of the thread that ended a
	// wait, 0 if that is not known.
	//
	// Sample: Stack are the addresses of the user stack, innermost first: the
	// instruction that runs, then for each caller the last byte of its call, so
	// that each address lies in the function that it stands for. Kernel are those
	// of the kernel stack, in front of the user stack: return addresses but for the
	// first one.
	Kernel []uint64
	// Sample: the frames of CPython, innermost first, two words each: the address
	// of the code object, with bit 0 set where the interpreter's loop was entered,
	// and the address of the instruction. 1 and 0 mark an entry alone.
	Python []uint64
	// Sample: address of what runtime/pprof has labelled the goroutine with, 0 for
	// nothing.
	GoLabels uint64
	StackID  uint64 // Sample: of the stack, in its session
	Waker    uint64 // Sample: StackID of the stack of the waker
	Weight   uint64 // Sample: what it stands for, in the unit of the profile's event
	Cut      Cut    // Sample: why Stack ends before its outermost frame

	Unread uint32   // USDT: bit i says that Args[i] could not be read
	Texts  []string // USDT: the string that Args[i] points to, "" where it points to none; may be shorter than Args

	Status   uint32 // TaskExit, ProcessExit: wait status; the low 7 bits are the signal that ended it, 0 for none
	Child    uint32 // Fork: thread id of the new task
	ChildPID uint32 // Fork: process id of the new task
	Comm     string // Fork, Exec, Comm, Sample: task name
	Count    uint64 // Lost: how many; Sample: how many with this stack
	CPU      int32  // Lost, Sample: on which CPU, -1 unknown
	Cause    LostCause
}

// Cut says why the user stack of a sample ends before its outermost frame. The
// values are those of enum stack_cut in bpf/events.h and are stored in
// recordings: append only.
type Cut uint8

// Causes of cut stacks.
const (
	CutNone       Cut = iota // the stack is complete
	CutNoRule                // code without unwind information that has no frame pointer either
	CutUnreadable            // memory of the stack could not be read
	CutTooDeep               // more than MaxSampleDepth frames
	CutRegister              // a register that the way to the caller needs has been overwritten
	CutUnmapped              // a return address that is in no code
	CutNotLoaded             // the process or the file was not known yet
	CutLoop                  // the stack led back to itself

	Cuts // their number
)

// MaxSampleDepth is how many frames of a user stack a sample has at most:
// MAX_SAMPLE_USER of bpf/events.h.
const MaxSampleDepth = 1024

// String returns the cause as printed and as written to JSON.
func (c Cut) String() string {
	switch c {
	case CutNone:
		return "complete"
	case CutNoRule:
		return "no-unwind-information"
	case CutUnreadable:
		return "stack-unreadable"
	case CutTooDeep:
		return "too-deep"
	case CutRegister:
		return "register-lost"
	case CutUnmapped:
		return "no-code"
	case CutNotLoaded:
		return "not-loaded"
	case CutLoop:
		return "loop"
	}
	return "unknown"
}

// LostCause says why events are missing. Values are stored in recordings.
type LostCause uint8

// Causes of loss.
const (
	LostNone     LostCause = iota
	LostRing               // the ring buffer was full
	LostStack              // the kernel-side call stack was deeper than it can hold
	LostMissed             // the kernel skipped the program (recursion, missed probe)
	LostFiltered           // the overhead governor detached the function
)

// String returns the cause as printed and as written to JSON ("cause").
func (c LostCause) String() string {
	switch c {
	case LostRing:
		return "ring-full"
	case LostStack:
		return "stack-too-deep"
	case LostMissed:
		return "missed"
	case LostFiltered:
		return "detached"
	}
	return "unknown"
}

// LangStatic is the language of static probes (USDT): what fires, and is no call.
const LangStatic = "usdt"

// Func describes one traced function for people and for exports.
type Func struct {
	ID      FuncID
	Name    string // demangled
	Module  string // base name of the ELF file, or "" for the target's main executable
	Path    string // path of the ELF file as the target sees it
	BuildID string // hex, empty if the file has none
	Offset  uint64 // file offset of the function's first byte
	Size    uint64 // bytes, 0 unknown
	File    string // source file, empty if unknown
	Line    int    // source line, 0 if unknown
	Lang    string // "c", "c++", "rust", "go", "python", …; LangStatic
}
