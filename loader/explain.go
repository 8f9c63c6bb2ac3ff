package loader

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// permissionError is a refusal of the kernel's in words for a person. What the
// kernel said stays within reach of errors.Is; as text it only confuses where a
// capability is missing.
type permissionError struct {
	missing []string
	err     error
}

func (e *permissionError) Error() string {
	if len(e.missing) == 0 {
		return fmt.Sprintf("%v, although the capabilities are there: a security module, a seccomp filter or the container's runtime refuses it; in a container try --privileged (%v)", ErrPermission, e.err)
	}
	return fmt.Sprintf("%v: it takes %s: run it with sudo", ErrPermission, strings.Join(e.missing, " and "))
}

func (e *permissionError) Unwrap() []error { return []error{ErrPermission, e.err} }

// explain makes a refusal of the kernel's an error that says what to do. If it
// may be that the kernel lacks something, suspects are tried, the first things
// first.
func explain(err error, suspects ...trial) error {
	var explained *permissionError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &explained):
		return err
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return &permissionError{MissingCapabilities(), err}
	case errors.Is(err, ErrNotSupported):
		return err // it says what
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		return fmt.Errorf("%w: select fewer functions, or allow more (ulimit -n)", err)
	case errors.Is(err, unix.ENOMEM):
		return fmt.Errorf("%w: the kernel has no room for it: try a smaller event buffer", err)
	}
	if len(suspects) > 0 {
		t := newTrials()
		defer t.close()
		kernel, _, _ := RunningKernel()
		if lacking := lacking(thisHost(t.attempt), kernel, suspects); lacking != nil {
			return lacking
		}
	}
	if errors.Is(err, ebpf.ErrNotSupported) {
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

// lacking returns the first of the suspects that the kernel has not, nil if there
// is none for certain.
func lacking(h *host, kernel KernelVersion, suspects []trial) error {
	tests := kernelTests(suspects...)
	for i := range tests {
		f := tests[i].Feature
		var detail string
		detail, f.Err = tests[i].test(h)
		judge(&f, &tests[i], kernel, true)
		if f.State != Unsupported {
			continue
		}
		e := &FeatureError{Feature: f.Name, Kernel: f.Since, Err: f.Err}
		if detail != "" {
			e.Err = errors.New(detail)
		}
		if since, err := ParseKernelVersion(f.Since); err != nil || kernel.AtLeast(since.Major, since.Minor) {
			// Not its age: it was built without, or something hides it.
			e.Kernel, e.Takes = "", cmp.Or(tests[i].fix, "a kernel, or a container, in which nothing disables it")
		}
		return e
	}
	return nil
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

// MissingForOthers names the capabilities that tracing a process of another user
// takes and this process lacks.
func MissingForOthers() []string {
	missing := MissingCapabilities()
	if set, err := effectiveCapabilities(); err != nil || !has(set, capSysPtrace) {
		missing = append(missing, capabilityNames[capSysPtrace])
	}
	return missing
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
