// Package loader is the one room that talks to the kernel's BPF: it loads the
// programs, attaches them to sites, reads their events, and accounts for what
// was lost. Sites go in, events come out; what to probe and what it is called
// is not its business.
package loader

import (
	"errors"
	"fmt"
)

// Kinds of failure. Errors of this package wrap one of them where it applies.
var (
	// ErrPermission: the kernel refused for want of a capability.
	ErrPermission = errors.New("permission denied")
	// ErrNotSupported: the kernel lacks a feature; the error is a *FeatureError.
	ErrNotSupported = errors.New("not supported by this kernel")
	// ErrClosed: the session has been closed.
	ErrClosed = errors.New("session closed")
)

// FeatureError says which kernel feature is missing and what kernel has it.
type FeatureError struct {
	Feature string // "BPF ring buffer"
	Kernel  string // first kernel that has it: "5.8"; empty: it is no matter of versions
	Takes   string // what has it where Kernel is empty: "a kernel with CONFIG_DEBUG_INFO_BTF"
	Err     error  // what the kernel answered
}

func (e *FeatureError) Error() string {
	which := "this kernel"
	if v, _, err := RunningKernel(); err == nil {
		which = "this kernel, Linux " + v.String() + ","
	}
	takes := e.Takes
	if e.Kernel != "" {
		takes = "Linux " + e.Kernel + " or newer"
	}
	return fmt.Sprintf("%s has no %s: it takes %s (%v)", which, e.Feature, takes, e.Err)
}

// Unwrap returns what the kernel answered.
func (e *FeatureError) Unwrap() error { return e.Err }

// Is makes every FeatureError an ErrNotSupported.
func (e *FeatureError) Is(target error) bool { return target == ErrNotSupported }
