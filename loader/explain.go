package loader

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// permissionError is a refusal of the kernel's in words for a person. What the
// kernel said stays within reach of errors.Is; as text it only confuses.
type permissionError struct {
	missing []string
	err     error
}

func (e *permissionError) Error() string {
	return fmt.Sprintf("%v: it takes %s: run it with sudo", ErrPermission, strings.Join(e.missing, " and "))
}

func (e *permissionError) Unwrap() []error { return []error{ErrPermission, e.err} }

// explain makes a refusal of the kernel's an error that says what to do.
func explain(err error) error {
	var explained *permissionError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &explained):
		return err
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		if missing := MissingCapabilities(); len(missing) > 0 {
			return &permissionError{missing, err}
		}
		return fmt.Errorf("%w: %w", ErrPermission, err)
	case errors.Is(err, ebpf.ErrNotSupported):
		return &FeatureError{Feature: "support for a BPF feature that sbxtrace uses", Kernel: "5.15", Err: err}
	}
	return err
}

// explainPerf is explain for probes by perf events, which take more than those by
// uprobe_multi: without CAP_SYS_ADMIN the kernel refuses them.
func explainPerf(err error) error {
	if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) {
		return err
	}
	if set, capErr := effectiveCapabilities(); capErr == nil && set&(1<<capSysAdmin) == 0 {
		return &permissionError{[]string{"CAP_SYS_ADMIN for probes by perf events"}, err}
	}
	return err
}

// MissingCapabilities names the capabilities that tracing takes and this
// process lacks: none if it has CAP_SYS_ADMIN, which stands for them.
func MissingCapabilities() []string {
	set, err := effectiveCapabilities()
	if err != nil {
		return nil
	}
	return missingIn(set)
}

// effectiveCapabilities are the capabilities of this process, bit by bit.
func effectiveCapabilities() (uint64, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, fmt.Errorf("read own capabilities: %w", err)
	}
	_, rest, ok := strings.Cut(string(status), "\nCapEff:")
	field, _, _ := strings.Cut(rest, "\n")
	set, err := strconv.ParseUint(strings.TrimSpace(field), 16, 64)
	if !ok || err != nil {
		return 0, fmt.Errorf("read own capabilities: %q in /proc/self/status", field)
	}
	return set, nil
}
