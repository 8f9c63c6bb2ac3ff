package symbolizer

import (
	"errors"
	"fmt"
)

// Kinds of failure. Callers test for them with errors.Is; the error returned
// names the file or process and what was wrong with it.
var (
	// ErrNotELF: the file is not an ELF file (a script, a directory, a pipe).
	ErrNotELF = errors.New("not an ELF file")
	// ErrMalformed: the file contradicts itself or the format, or claims sizes
	// beyond what this package is ready to hold in memory.
	ErrMalformed = errors.New("malformed")
	// ErrTooLarge: well formed as far as read, but beyond a limit of this package.
	ErrTooLarge = errors.New("too large")
	// ErrNoProcess: there is no process with that id (any more).
	ErrNoProcess = errors.New("no such process")
	// ErrNoCode: the address or function has no bytes in the file.
	ErrNoCode = errors.New("no code in the file")
	// ErrNoDebugInfo: neither DWARF nor a Go function table, here or in a separate
	// debug file.
	ErrNoDebugInfo = errors.New("no debug information")
	// ErrUnmapped: the address is in no executable mapping of the process.
	ErrUnmapped = errors.New("address not mapped")
)

// guard turns a panic of a parser (debug/elf, debug/dwarf and demanglers are
// written for well-formed input) into an error that wraps ErrMalformed. Use it
// as `defer guard(&err, "what")` at the edge where hostile bytes come in.
func guard(err *error, what string) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("%s: %w: %v", what, ErrMalformed, r)
	}
}
