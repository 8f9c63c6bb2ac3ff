package uprobes

import (
	"debug/elf"

	"github.com/sbxtrace/sbxtrace/symbolizer"
)

// Registers are the integer registers of one calling convention, as level
// `args` records and names them.
type Registers struct {
	// ABI is the convention's name.
	ABI string
	// Args are the registers of the integer and pointer arguments, in order.
	// Values wider than a register (structs, strings, slices) take several.
	Args []string
	// Results are the registers of an integer result, in order.
	Results []string
	// Context is the register that points to a closure's variables; empty if
	// the convention has none that tracing shows.
	Context string
	// G is the register with the running goroutine; empty outside of Go.
	G string
}

// RegisterTable holds the calling conventions that are known: System V psABI
// for x86-64, AAPCS64, and Go's ABIInternal (src/cmd/compile/abi-internal.md).
var RegisterTable = map[elf.Machine]struct{ C, Go Registers }{
	elf.EM_X86_64: {
		C: Registers{
			ABI:     "sysv",
			Args:    []string{"rdi", "rsi", "rdx", "rcx", "r8", "r9"},
			Results: []string{"rax", "rdx"},
		},
		Go: Registers{
			ABI:     "go",
			Args:    []string{"rax", "rbx", "rcx", "rdi", "rsi", "r8", "r9", "r10", "r11"},
			Results: []string{"rax", "rbx", "rcx", "rdi", "rsi", "r8", "r9", "r10", "r11"},
			Context: "rdx",
			G:       "r14",
		},
	},
	elf.EM_AARCH64: {
		C: Registers{
			ABI:     "aapcs64",
			Args:    []string{"x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7"},
			Results: []string{"x0", "x1"},
		},
		Go: Registers{
			ABI:     "go",
			Args:    []string{"x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15"},
			Results: []string{"x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15"},
			Context: "x26",
			G:       "x28",
		},
	},
}

// ArgRegisters returns the convention that fn's arguments follow, and false if
// none is known: an unknown machine, or Go assembly, which takes its arguments
// from the stack.
func ArgRegisters(arch elf.Machine, fn *symbolizer.Function) (Registers, bool) {
	t, ok := RegisterTable[arch]
	switch {
	case !ok, fn.ABI0:
		return Registers{}, false
	case fn.Lang == symbolizer.LangGo:
		return t.Go, true
	}
	return t.C, true
}
