package uprobes

import (
	"debug/elf"
	"errors"
	"fmt"
	"strconv"

	"github.com/sbxtrace/sbxtrace/symbolizer"
)

var (
	// ErrNotProbeable says that no probe can be placed in a function: its code
	// is not understood, or the kernel refuses its instructions.
	ErrNotProbeable = errors.New("not probeable")
	// ErrUnsafe says that the wanted probe could make the target crash.
	ErrUnsafe = errors.New("unsafe")
)

// ReturnMethod is how the end of a call is observed.
type ReturnMethod uint8

// Methods to observe returns.
const (
	ReturnAuto      ReturnMethod = iota // the cheapest safe one
	ReturnUretprobe                     // the kernel replaces the return address
	ReturnRet                           // a probe on each RET instruction
	ReturnNone                          // entries only
)

// String returns the method's name.
func (m ReturnMethod) String() string {
	switch m {
	case ReturnAuto:
		return "auto"
	case ReturnUretprobe:
		return "uretprobe"
	case ReturnRet:
		return "ret"
	case ReturnNone:
		return "none"
	}
	return "unknown"
}

// Options steer the placement. The zero value is safe on every kernel for
// targets that raise no exceptions, and leaves argument registers alone only
// as far as the entry site happens to.
type Options struct {
	// ReturnMethod is how returns are observed. Go functions never get a return
	// probe: ReturnUretprobe is refused with ErrUnsafe for them.
	ReturnMethod ReturnMethod
	// Unwinds says that something in this process walks stacks and relies on
	// what it finds: exceptions, panics, the garbage collector of a virtual
	// machine. A return probe hides the caller from it, which ends the process,
	// so functions that call others get RET sites.
	Unwinds bool
	// NeedArgs requires that argument registers, and the memory they point to,
	// still have their values from the call at the entry site.
	NeedArgs bool
	// EmulatedNops says that the kernel emulates all nops: x86 from 6.16 (before
	// it only 0x90), arm64 from 6.13 on.
	EmulatedNops bool
	// Optimized5ByteNop says that the kernel turns uprobes on 5-byte nops into
	// system calls (x86 from 6.18 on). It implies EmulatedNops on x86.
	Optimized5ByteNop bool
	// SameFunction reports whether the code at a virtual address of the file,
	// outside of the function, is another part of the same function (name.cold,
	// name.part). Nil: judged by the state of the stack at the jump alone.
	SameFunction func(addr uint64) bool
	// OtherEntry reports whether another symbol begins at a virtual address
	// within the function, so that it can be called or jumped to. Nil: none.
	OtherEntry func(addr uint64) bool
}

// Plan is where the probes of one function go. It is not shared: the caller
// may change it.
type Plan struct {
	Entry Site
	// Returns is empty, or one site with RoleReturn (its offset is the entry's),
	// or one site with RoleRet per RET instruction and one with RoleTail per jump
	// to another function that surely ends the call, by ascending offset. In a
	// function of one RET that site has the entry's offset: probes there have to
	// run in the order entry, return.
	Returns []Site
	// TailJumps says that the function may end in a jump to other code, so that
	// a call can end without passing one of its RET instructions.
	TailJumps bool
	// TailSites says that every such jump is among Returns, with RoleTail.
	TailSites bool
	// Split says that parts of the function lie elsewhere (name.cold); a RET in
	// those is not among Returns.
	Split bool
	// Parts are addresses in those other parts that the function jumps to, at
	// most maxParts. See AddPart.
	Parts []uint64
	// Calls says that the function calls others: it is not a leaf.
	Calls bool
	// SelfRecursive says that the function calls itself directly.
	SelfRecursive bool
	// LoopsAtStart says that a branch of the function leads to its first byte: a
	// loop, or recursion that the compiler turned into one. Each round hits the
	// entry site, with the stack pointer of the call. It is never set for Go
	// functions, which branch there only to retry after their stack grew.
	LoopsAtStart bool
	// NoReturn says that the function has neither a RET nor a jump out: it can
	// only end by an exception, a longjmp or with the thread.
	NoReturn bool
	// Warnings are short phrases on what will be missing or inexact.
	Warnings []string

	method ReturnMethod // how returns are observed; parts may have the only ones
}

func (p *Plan) warn(format string, args ...any) {
	p.Warnings = append(p.Warnings, fmt.Sprintf(format, args...))
}

// Analyze chooses the sites for fn, whose machine code is code: len(code) is
// the function's size. It fails with an error wrapping ErrNotProbeable when no
// probe can be placed, ErrUnsafe when the wanted return method would endanger
// the target. It is pure and may be called from several goroutines; code is
// neither changed nor kept.
func Analyze(arch elf.Machine, code []byte, fn symbolizer.Function, opt Options) (*Plan, error) {
	if fn.Lang == symbolizer.LangGo && opt.ReturnMethod == ReturnUretprobe {
		return nil, fmt.Errorf("return probe on Go function %s: %w: Go moves stacks, the process would crash", fn.Name, ErrUnsafe)
	}
	if fn.Fragment {
		return nil, notProbeable(&fn, "reached by jumps only: a part of another function, or a signal trampoline")
	}
	if fn.Size == 0 || len(code) == 0 {
		return nil, notProbeable(&fn, "size unknown")
	}
	if fn.Size < uint64(len(code)) {
		code = code[:fn.Size]
	}
	if len(code) > maxCodeSize {
		return nil, notProbeable(&fn, "larger than 16 MiB")
	}
	if reason, bad := notProbeableNames[baseSymbol(fn.Symbol)]; bad {
		return nil, notProbeable(&fn, reason)
	}
	scan, place, ok := forMachine(arch)
	if !ok {
		return nil, notProbeable(&fn, "no placement for "+arch.String())
	}
	s := scratchPool.Get().(*scratch)
	defer scratchPool.Put(s)
	s.reset(len(code))
	b := scan(code, &fn, &opt, s)
	p := &Plan{
		TailJumps:     b.tailJumps,
		Split:         len(b.parts) > 0,
		Parts:         b.parts,
		Calls:         b.calls,
		SelfRecursive: b.selfRecursive,
		LoopsAtStart:  b.jumpsToStart && fn.Lang != symbolizer.LangGo,
		NoReturn:      len(b.rets) == 0 && !b.retGuarded && !b.tailJumps && len(b.parts) == 0 && b.complete(),
	}
	method, err := chooseReturns(p, &fn, &opt, &b)
	if err != nil {
		return nil, err
	}
	entry, err := place(code, &fn, &opt, &b, method == ReturnUretprobe)
	if err != nil {
		return nil, notProbeable(&fn, err.Error())
	}
	p.Entry = Site{
		Offset: fn.Offset + uint64(entry.off), Role: RoleEntry,
		Class: entry.class, SPAdjust: entry.sp, Reason: entry.reason,
	}
	if entry.warning != "" {
		p.warn("%s", entry.warning)
	}
	p.method = method
	if p.LoopsAtStart {
		p.warn("a loop begins at the first byte: each round counts as a call")
	}
	p.Returns = b.returnSites(method, &fn, &p.Entry)
	p.TailSites = method == ReturnRet && p.TailJumps && !b.tailsUnseen
	return p, nil
}

type (
	// scanFunc looks through the whole body of a function.
	scanFunc func(code []byte, fn *symbolizer.Function, opt *Options, s *scratch) body
	// placeFunc chooses the entry site. atEntrySP asks for one where a return
	// probe finds the return address.
	placeFunc func(code []byte, fn *symbolizer.Function, opt *Options, b *body, atEntrySP bool) (entrySite, error)
)

func forMachine(arch elf.Machine) (scanFunc, placeFunc, bool) {
	switch arch {
	case elf.EM_X86_64:
		return scanAMD64, placeAMD64, true
	case elf.EM_AARCH64:
		return scanARM64, placeARM64, true
	}
	return nil, nil, false
}

// entrySite is the instruction chosen for the entry of a function.
type entrySite struct {
	off     int32 // from the function's first byte
	class   InsnClass
	sp      int32 // Site.SPAdjust
	reason  string
	warning string // for Plan.Warnings; empty if there is nothing to say
}

// walkFunc looks for the entry site from offset start on.
type walkFunc func(code []byte, fn *symbolizer.Function, opt *Options, b *body, start int32, atEntrySP bool) (entrySite, error)

// placeWith looks for the entry site by walk, in Go functions behind the check
// for stack space. When the rules cannot be met it gives up first the
// arguments, then counting a Go call once when the stack grows.
func placeWith(walk walkFunc, goStackCheck func([]byte) int32,
	code []byte, fn *symbolizer.Function, opt *Options, b *body, atEntrySP bool) (entrySite, error) {
	start := int32(0)
	if fn.Lang == symbolizer.LangGo {
		start = goStackCheck(code)
	}
	site, err := walk(code, fn, opt, b, start, atEntrySP)
	if err != nil && opt.NeedArgs {
		// The first instruction is one that the kernel refuses, such as a locked
		// one: a late site is better than none.
		late := *opt
		late.NeedArgs = false
		if site, err = walk(code, fn, &late, b, start, atEntrySP); err == nil && site.off > 0 {
			site.warning = "arguments may have changed before the entry site"
		}
	}
	if err != nil && start > 0 {
		if site, err = walk(code, fn, opt, b, 0, atEntrySP); err == nil {
			site.warning = "a call that grows the stack counts twice"
		}
	}
	return site, err
}

// maxCodeSize is the largest function that is looked at, as in package
// symbolizer. Offsets within a function fit an int32.
const maxCodeSize = 16 << 20

// atOffset is how reasons name a place in a function.
func atOffset(off int32) string { return " at +" + strconv.Itoa(int(off)) }

func notProbeable(fn *symbolizer.Function, reason string) error {
	return fmt.Errorf("%s: %w: %s", fn.Name, ErrNotProbeable, reason)
}
