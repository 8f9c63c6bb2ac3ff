package loader

import (
	"fmt"

	"github.com/sbxtrace/sbxtrace/trace"
)

// Program says what a probe does when it is hit.
type Program uint8

// Programs of a session, one per kind of site.
const (
	ProgramEntry        Program = iota // entry of a native function
	ProgramReturn                      // return probe of a native function
	ProgramRet                         // RET instruction of a native function
	ProgramGoEntry                     // entry of a Go function
	ProgramGoRet                       // RET instruction of a Go function
	ProgramGoExit                      // end of a goroutine (runtime.goexit1)
	ProgramUSDT                        // static probe
	ProgramPythonEntry                 // CPython function__entry
	ProgramPythonReturn                // CPython function__return
	programs
)

// Probe is one site to attach to.
type Probe struct {
	Program      Program
	Offset       uint64 // file offset of the instruction
	SPAdjust     uint64 // bytes from sp at the site up to the slot of the return address; a multiple of 8 below 2048
	RefCtrOffset uint64 // file offset of a USDT semaphore, 0 for none
	TailJumps    bool   // the function may leave by a tail call
	Hooked       bool   // the function's exits come from a return probe
	ABI0         bool   // Go assembly: g is not in its register
	Tail         bool   // the site is a jump to another function
	Condition    uint8  // Tail: when it is taken, as uprobes.Condition
	CostNS       uint32 // expected cost of a hit, for the overhead governor
}

// Function is a function's probes; they are attached and detached together.
type Function struct {
	ID     trace.FuncID
	Probes []Probe
	USDT   []USDTArg // arguments of a static probe
	// Announced: an entry of Python functions that may be followed by one at
	// another site for the same call.
	Announced bool
}

// Module is one ELF file with the functions to trace in it.
type Module struct {
	Path      string // openable now, e.g. below /proc/PID/root
	PID       uint32 // only this process; 0 for every process that maps the file
	Functions []Function
}

// Limits of the cookie's fields, see bpf/calls.h.
const (
	maxFuncID     = 1<<24 - 1
	maxGroups     = 1 << 16
	maxSPAdjust   = 255 * 8
	cookieGroup   = 24
	cookieGen     = 40
	cookieSP      = 48
	cookieFlags   = 56
	flagTailJumps = 1 << 0
	flagHooked    = 1 << 1
	flagABI0      = 1 << 2
	flagTail      = 1 << 3
	flagEveryone  = 1 << 4
)

// cookie packs what a program must know of the site it was hit at. everyone:
// the site is attached for every process that maps the file.
func cookie(id trace.FuncID, group uint16, generation uint8, p *Probe, everyone bool) (uint64, error) {
	if id > maxFuncID {
		return 0, fmt.Errorf("function id %d: at most %d functions can be traced at once", id, maxFuncID)
	}
	if p.SPAdjust > maxSPAdjust || p.SPAdjust%8 != 0 || p.Tail && p.SPAdjust != 0 {
		return 0, fmt.Errorf("stack adjustment of %d bytes cannot be encoded", p.SPAdjust)
	}
	c := uint64(id) | uint64(group)<<cookieGroup | uint64(generation)<<cookieGen | p.SPAdjust/8<<cookieSP
	if everyone {
		c |= flagEveryone << cookieFlags
	}
	if p.TailJumps {
		c |= flagTailJumps << cookieFlags
	}
	if p.Hooked {
		c |= flagHooked << cookieFlags
	}
	if p.ABI0 {
		c |= flagABI0 << cookieFlags
	}
	if p.Tail {
		c |= flagTail<<cookieFlags | uint64(p.Condition)<<cookieSP
	}
	return c, nil
}
