package symbolizer

import (
	"cmp"
	"debug/elf"
	"errors"
	"fmt"
	"slices"
)

// UnwindKind says how the canonical frame address (CFA) of a frame is found:
// the value of the stack pointer before the call that made the frame.
type UnwindKind uint8

// Kinds of unwind rules. The values are those of enum unwind_kind in
// bpf/unwind.h.
const (
	// UnwindNone: nothing is known of this code. Frame pointers are all there is.
	UnwindNone UnwindKind = iota
	// UnwindEnd: the outermost frame of its stack.
	UnwindEnd
	// UnwindCFA: CFA = register + Offset; the return address is at CFA + Second
	// (x86-64).
	UnwindCFA
	// UnwindDeref: CFA = word at (register + Offset) + Second.
	UnwindDeref
	// UnwindPLT: CFA = sp + Offset, and 8 more from byte Second of each 16 bytes
	// of code on: entries of the procedure linkage table.
	UnwindPLT
	// UnwindSignal: the trampoline that a signal handler returns to. All registers
	// of what was interrupted are in the signal frame at sp + Offset.
	UnwindSignal
	// UnwindGoStack: Go code that has left its goroutine's stack without a trace
	// on the new one. The goroutine's saved state goes on.
	UnwindGoStack
)

// String returns the kind's name.
func (k UnwindKind) String() string {
	switch k {
	case UnwindEnd:
		return "end"
	case UnwindCFA:
		return "cfa"
	case UnwindDeref:
		return "deref"
	case UnwindPLT:
		return "plt"
	case UnwindSignal:
		return "signal"
	case UnwindGoStack:
		return "go stack"
	}
	return "none"
}

// UnwindExact is a flag of UnwindRule: the caller's address is that of the
// instruction that runs next, not one behind a call. So it is where a frame was
// not made by a call (signals, Go's asynchronous preemption).
const UnwindExact = 1

// SavedRegs is how many registers a rule tells about.
const SavedRegs = 6

// SavedLost in UnwindRule.Saved says that the caller's value is not to be had.
const SavedLost = -1 << 15

// UnwindRule tells how to get from a frame to its caller at one instruction. It
// is comparable: equal rules are the same rule.
type UnwindRule struct {
	Kind   UnwindKind
	Reg    uint8 // DWARF number of the register that the CFA counts from
	RAReg  uint8 // 1 + DWARF number of the register that holds the return address; 0: where Kind says
	Flags  uint8 // UnwindExact
	Offset int32 // see Kind
	Second int32 // see Kind
	// Saved tells for each register of UnwindRegs where the caller's value is: 0
	// still in the register, SavedLost nowhere, else at the CFA plus 4 × Saved
	// bytes if Saved is even, at the frame pointer plus 4 × (Saved-1) if it is odd.
	Saved [SavedRegs]int16
}

// UnwindRegs are the DWARF numbers of the registers that are followed through
// frames: those that a CFA may count from in a caller. x86-64: rbx, rbp, r12 to
// r15. AArch64: x29 (frame pointer), x30 (return address), x19 to x22.
func UnwindRegs(arch elf.Machine) (regs [SavedRegs]uint8, ok bool) {
	switch arch {
	case elf.EM_X86_64:
		return [SavedRegs]uint8{3, 6, 12, 13, 14, 15}, true
	case elf.EM_AARCH64:
		return [SavedRegs]uint8{29, 30, 19, 20, 21, 22}, true
	}
	return regs, false
}

// DWARF register numbers of the stack and frame pointers and the column of the
// return address: System V ABI for x86-64, figure 3.36; DWARF for AArch64.
const (
	amd64FP, amd64SP, amd64RA = 6, 7, 16
	arm64FP, arm64RA, arm64SP = 29, 30, 31
)

// UnwindRow says that from the address Addr of the file on (not relocated) the
// rule Rule of the table applies, up to the next row.
type UnwindRow struct {
	Addr uint64
	Rule uint32 // index into UnwindTable.Rules
}

// UnwindTable is everything that is known about how to unwind the code of one
// file: rows in strictly ascending order of their addresses.
type UnwindTable struct {
	Rows  []UnwindRow
	Rules []UnwindRule // [0] is UnwindNone, [1] UnwindEnd

	// Unsupported counts the entries of unwind information that could not be
	// expressed: their code has no rule.
	Unsupported int
	// FDEs are the entries read, EHFrameBytes the size of the sections they come
	// from.
	FDEs         int
	EHFrameBytes int
}

// Indexes of rules that every table has.
const (
	ruleNone uint32 = iota
	ruleEnd
)

// Lookup returns the rule that applies at an address of the file.
func (t *UnwindTable) Lookup(addr uint64) UnwindRule {
	i, exact := slices.BinarySearchFunc(t.Rows, addr, func(r UnwindRow, a uint64) int { return cmp.Compare(r.Addr, a) })
	if !exact {
		i--
	}
	if i < 0 {
		return UnwindRule{}
	}
	return t.Rules[t.Rows[i].Rule]
}

// maxUnwindRows bounds a table: Chromium's has 5 million rows.
const maxUnwindRows = 16 << 20

// UnwindTable builds the unwind table of the file from .eh_frame, .debug_frame
// (its own or that of its separate debug file), and for Go from the runtime's
// function table; on x86-64 from the code itself where there is none of these.
// A file without any has an empty table. A malformed section
// yields what comes before the fault, and an error wrapping ErrMalformed.
// The table is not kept.
func (b *Binary) UnwindTable() (t *UnwindTable, err error) {
	defer guard(&err, b.Path+": unwind information")
	builder, err := newUnwindBuilder(b.Arch)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.Path, err)
	}
	var errs []error
	frames, err := b.Frames()
	errs = append(errs, err)
	builder.addFrames(frames)
	if s := b.section(".eh_frame"); s != nil {
		builder.table.EHFrameBytes += int(s.Size)
	}
	errs = append(errs, b.addDebugFrames(builder))
	errs = append(errs, b.addGoRows(builder))
	b.addScanned(builder)
	builder.finish()
	return builder.table, errors.Join(errs...)
}

// unwindBuilder collects rows of several sources and interns their rules.
type unwindBuilder struct {
	arch  elf.Machine
	regs  [SavedRegs]uint8
	table *UnwindTable
	ids   map[UnwindRule]uint32
	last  UnwindRule // of the last look-up: most rows repeat one of few rules
	id    uint32

	spans []unwindSpan // in the order in which they were added
	rows  []UnwindRow  // of all spans
}

// unwindSpan is a piece of code whose rows are known.
type unwindSpan struct {
	start, end uint64
	first, n   int // its rows in unwindBuilder.rows
}

func newUnwindBuilder(arch elf.Machine) (*unwindBuilder, error) {
	regs, ok := UnwindRegs(arch)
	if !ok {
		return nil, fmt.Errorf("no unwinding for machine %v", arch)
	}
	b := &unwindBuilder{arch: arch, regs: regs, table: new(UnwindTable), ids: make(map[UnwindRule]uint32)}
	b.rule(UnwindRule{})
	b.rule(UnwindRule{Kind: UnwindEnd})
	return b, nil
}

// rule returns the index of a rule.
func (b *unwindBuilder) rule(r UnwindRule) uint32 {
	if r == b.last && len(b.ids) > 0 {
		return b.id
	}
	id, known := b.ids[r]
	if !known {
		id = uint32(len(b.table.Rules))
		b.ids[r] = id
		b.table.Rules = append(b.table.Rules, r)
	}
	b.last, b.id = r, id
	return id
}

// begin starts a span of code; add adds its rows in ascending order; end ends it.
func (b *unwindBuilder) begin() int { return len(b.rows) }

func (b *unwindBuilder) add(addr uint64, r UnwindRule) {
	b.rows = append(b.rows, UnwindRow{Addr: addr, Rule: b.rule(r)})
}

func (b *unwindBuilder) end(first int, start, end uint64) {
	if n := len(b.rows) - first; n > 0 && end > start {
		b.spans = append(b.spans, unwindSpan{start: start, end: end, first: first, n: n})
	} else {
		b.rows = b.rows[:first]
	}
}

// full reports whether the table has reached its limit.
func (b *unwindBuilder) full() bool { return len(b.rows) >= maxUnwindRows }

// covered returns the spans so far as sorted ranges.
func (b *unwindBuilder) covered() []addrRange {
	rs := make([]addrRange, len(b.spans))
	for i, s := range b.spans {
		rs[i] = addrRange{s.start, s.end}
	}
	sortRanges(rs)
	return rs
}

// finish sorts the spans and joins their rows. Where spans overlap, the one that
// starts later has the code from its start on; of two with the same start, the
// one that was added first.
func (b *unwindBuilder) finish() {
	slices.SortStableFunc(b.spans, func(x, y unwindSpan) int { return cmp.Compare(x.start, y.start) })
	rows := make([]UnwindRow, 0, len(b.rows)+len(b.spans)/8)
	put := func(r UnwindRow) {
		if n := len(rows); n == 0 || rows[n-1].Rule != r.Rule {
			rows = append(rows, r)
		}
	}
	var reach uint64 // end of what is covered so far
	for i := range b.spans {
		s := &b.spans[i]
		if i > 0 && s.start == b.spans[i-1].start {
			continue
		}
		if i > 0 && s.start > reach {
			put(UnwindRow{Addr: reach, Rule: ruleNone})
		}
		stop := s.end
		for _, next := range b.spans[i+1:] {
			if next.start > s.start {
				stop = min(stop, next.start)
				break
			}
		}
		for _, r := range b.rows[s.first : s.first+s.n] {
			if r.Addr < stop {
				put(r)
			}
		}
		reach = max(reach, stop)
	}
	if len(rows) > 0 {
		put(UnwindRow{Addr: reach, Rule: ruleNone})
	}
	b.table.Rows = rows
	b.rows, b.spans, b.ids = nil, nil, nil
}
