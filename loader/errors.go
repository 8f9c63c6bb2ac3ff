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

// FeatureError says which kernel feature is missing and since when it exists.
type FeatureError struct {
	Feature string // "BPF ring buffer"
	Kernel  string // first kernel that has it: "5.8"
	Err     error  // what the kernel answered
}

func (e *FeatureError) Error() string {
	return fmt.Sprintf("this kernel has no %s: it takes Linux %s or newer (%v)", e.Feature, e.Kernel, e.Err)
}

// Unwrap returns what the kernel answered.
func (e *FeatureError) Unwrap() error { return e.Err }

// Is makes every FeatureError an ErrNotSupported.
func (e *FeatureError) Is(target error) bool { return target == ErrNotSupported }
