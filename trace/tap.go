package trace

// Tap gets a session's raw stream, from which a Pairer can make the same calls
// again: a recorder. It is called from one goroutine, in the order in which the
// Pairer was; arguments are valid only during the call.
type Tap interface {
	// Begin is the first call. p may be asked for Snapshots during the calls
	// that follow.
	Begin(p *Pairer)
	// Region is the answer that the Pairer got when it asked for the memory
	// mapping of a stack address while it consumed the event that follows.
	Region(pid uint32, r Region)
	// Event follows the Pairer: it has consumed e.
	Event(e *Event)
	// Tick follows the Pairer's Tick.
	Tick(now uint64)
	// Finish follows the Pairer's Finish, and is the last call.
	Finish(now uint64)
}
