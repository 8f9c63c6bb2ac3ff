package uprobes

// Role says what a hit of a site means.
type Role uint8

// Roles of a site.
const (
	RoleEntry  Role = iota // the function was called
	RoleReturn             // return probe: the kernel replaces the return address at the entry site
	RoleRet                // a RET instruction is about to return from the function
	RoleUSDT               // a static probe
	RoleTail               // a jump to another function, by which the call ends as by a RET
)

// String returns the role's name as printed by `functions --verbose`.
func (r Role) String() string {
	switch r {
	case RoleEntry:
		return "entry"
	case RoleReturn:
		return "return"
	case RoleRet:
		return "ret"
	case RoleUSDT:
		return "usdt"
	case RoleTail:
		return "tail jump"
	}
	return "unknown"
}

// InsnClass is what the kernel does with the probed instruction after the
// program ran. It decides what a hit costs, see CostModel.
type InsnClass uint8

// Classes of instructions, cheapest first.
const (
	// Nop5Optimized is a 5-byte nop that the kernel rewrites to a call of a
	// system call trampoline (x86, Linux 6.18): no trap at all.
	Nop5Optimized InsnClass = iota
	// Emulated instructions take one trap: the kernel computes their effect.
	Emulated
	// SingleStepped instructions are copied and executed out of line: two traps.
	SingleStepped
)

// String returns the class's name as printed by `functions --verbose`.
func (c InsnClass) String() string {
	switch c {
	case Nop5Optimized:
		return "optimized nop"
	case Emulated:
		return "emulated"
	case SingleStepped:
		return "single-stepped"
	}
	return "unknown"
}

// Condition says when a jump is taken.
type Condition uint8

// Conditions of jumps.
const (
	Always Condition = 0
	// Conditional marks a condition, which stands in the lower four bits as
	// x86 encodes it (Intel SDM volume 1, appendix B): 4 equal, 5 not equal, ….
	Conditional Condition = 1 << 4
)

// Site is one instruction at which a probe goes.
type Site struct {
	// Offset is the instruction's offset in the file, what a uprobe takes.
	Offset uint64
	Role   Role
	Class  InsnClass
	// SPAdjust is what has to be added to the stack pointer at this site, in
	// bytes, to get the stack pointer at the function's entry. On x86 that is
	// the address of the slot that holds the return address; on arm64 the
	// return address is in the link register and the value only identifies the
	// call. It is a multiple of 8 from 0 to MaxSPAdjust.
	SPAdjust int32
	// Condition is when a RoleTail site's jump is taken.
	Condition Condition
	// Reason is one short phrase on why this site: "push %rbp at +4, emulated".
	Reason string
}

// MaxSPAdjust is the largest SPAdjust of a site, in bytes: the value has to fit
// into 8 bits of a probe's cookie, counted in 8-byte words.
const MaxSPAdjust = 255 * 8
