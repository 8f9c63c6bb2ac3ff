package trace

// EndKind says how the end of a call became known.
type EndKind uint8

// Ways a call ends. Values are stored in recordings: append only.
const (
	EndReturn   EndKind = iota // its exit event arrived
	EndUnwound                 // no exit: left by longjmp, an exception or a panic; closed when the stack pointer proved it gone
	EndUnseen                  // no exit: nested deeper than the kernel's 64 return probes per thread; End is an upper bound
	EndTask                    // its thread ended inside it
	EndGo                      // its goroutine ended inside it (runtime.Goexit)
	EndExec                    // its process executed another program inside it
	EndOpen                    // still running when tracing stopped
	EndDetached                // the function's probes were removed while it ran
)

// String returns the kind as written to JSON ("end").
func (k EndKind) String() string {
	switch k {
	case EndReturn:
		return "return"
	case EndUnwound:
		return "unwound"
	case EndUnseen:
		return "unseen"
	case EndTask:
		return "thread-exit"
	case EndGo:
		return "goroutine-exit"
	case EndExec:
		return "exec"
	case EndOpen:
		return "open"
	case EndDetached:
		return "detached"
	}
	return "unknown"
}

// Lane is one line of execution: a thread, or a goroutine wherever it runs.
type Lane struct {
	PID  uint32
	TID  uint32 // of the thread last seen running it
	GoID uint64 // goroutine number; 0 for a thread
	Comm string // thread name if known
	// Calls open now, outermost first. Owned by the Pairer; read-only for sinks.
	Open []Call

	key    laneKey
	cur    region   // the stack in use
	stacks []region // every stack used: thread, signal and coroutine stacks
	serial uint32   // of the stack found last
}

// Call is one execution of a traced function: an entry and what ended it.
type Call struct {
	Start uint64 // ns, CLOCK_MONOTONIC
	Last  uint64 // ns, End once the call has ended; before that the last time it is known to have run
	Child uint64 // ns spent in traced callees
	SP    uint64 // as Event.SP at entry: the identity of the frame
	Ret   uint64 // raw return register, valid when HasRet

	Func      FuncID
	Parent    FuncID // the traced caller, valid when Depth > 0
	Depth     int32  // traced calls that it is nested in: its caller's Depth and one
	TID       uint32 // thread at entry
	End       EndKind
	HasRet    bool
	Recursive bool // the function is already among its own traced callers (searched 64 frames up)
	Gap       bool // events were lost while it was open: its callees and its end may be wrong
	Inherited bool // open in the parent process at fork: counted there, not here
	NArgs     uint8
	Args      [6]uint64 // raw integer argument registers, the first NArgs are valid
	Stack     []uint64  // level stacks: return addresses at entry, innermost first

	flags Flags
	group uint16 // calls below it at the same SP (a chain of tail calls)
	stack uint32 // serial number of the stack it is on, see region
}

// StackCut reports whether there may be more callers than Stack has: the chain of
// frame pointers, by which it was walked, broke, or there was no room.
func (c *Call) StackCut() bool { return c.flags&FlagCutStack != 0 }

// Duration is the time from entry to end in ns.
func (c *Call) Duration() uint64 { return sub(c.Last, c.Start) }

// Self is the Duration less the time in traced callees, in ns.
func (c *Call) Self() uint64 { return sub(c.Duration(), c.Child) }

// sub returns a-b, or 0 where clocks of two CPUs would make it negative.
func sub(a, b uint64) uint64 {
	if a < b {
		return 0
	}
	return a - b
}

// Sink consumes a stream of calls. A Pairer calls it from one goroutine, in
// the order of the events; arguments are valid only during the call and must
// not be changed.
type Sink interface {
	// Enter reports that c was entered; c is the lane's innermost open call.
	Enter(l *Lane, c *Call)
	// Leave reports that c has ended: callees always before their callers.
	// The call is no longer in l.Open.
	Leave(l *Lane, c *Call)
	// Event reports everything that is no call: process events, losses,
	// static probes.
	Event(e *Event)
	// Tick says that every event before now (ns, CLOCK_MONOTONIC) has been
	// delivered. It comes at least every 100 ms, also when nothing happens.
	Tick(now uint64)
}

// Functions names the FuncIDs of a session. It grows while tracing (libraries
// loaded later); an id never changes its meaning.
type Functions interface {
	// Func returns the description of id. It is never nil for an id that
	// came in an event.
	Func(id FuncID) *Func
}
