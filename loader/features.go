package loader

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"strconv"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// State is what probing for a feature has found out. Unsupported means that it
// is certain that the feature cannot be used. Whatever leaves room for doubt, a
// want of privileges above all, is Undetermined.
type State uint8

// States of a feature.
const (
	Undetermined State = iota
	Available
	Unsupported
)

// String returns the state's name, as in JSON.
func (s State) String() string {
	switch s {
	case Available:
		return "available"
	case Unsupported:
		return "unsupported"
	}
	return "undetermined"
}

// FeatureGroup is a heading under which features are shown.
type FeatureGroup string

// Groups of features.
const (
	GroupRights   FeatureGroup = "rights"   // what this process may do
	GroupKernel   FeatureGroup = "kernel"   // what the kernel can do, tried
	GroupSettings FeatureGroup = "settings" // what an administrator has set
)

// Feature is something that tracing uses, and whether it is there.
type Feature struct {
	ID       string // stable: "uprobe_multi"
	Group    FeatureGroup
	Name     string // for a person: "uprobe_multi links"
	Use      string // what tracing uses it for, or what its want means
	Since    string // first kernel that has it ("6.6"); empty if it is no matter of versions
	Required bool   // nothing can be traced without it
	State    State
	Detail   string // what was found; may be empty
	Fix      string // what to do about it; empty for what is available
	Err      error  // what the kernel answered; nil for what is available
}

// Machine is where sbxtrace runs.
type Machine struct {
	Release      string // of the kernel, as of uname -r
	Kernel       KernelVersion
	Arch         string // as in GOARCH
	CPUs         int    // that this process may use
	UID          int    // effective user
	Hypervisor   string // vendor or product, empty on bare metal as far as that can be told
	Container    string // its kind ("docker"), empty if there is no sign of one
	PIDNamespace bool   // in a pid namespace of its own: processes outside of it cannot be seen
	// UserNamespace: capabilities count only for what belongs to the
	// namespace, which BPF and perf events do not.
	UserNamespace bool
}

// Diagnosis is what Diagnose found.
type Diagnosis struct {
	Machine  Machine
	Features []Feature
	// Calibration is what probes cost here; its zero value if CalibrationErr
	// is set.
	Calibration    Calibration
	CalibrationErr error
}

// Missing returns the features that tracing cannot do without and that are not
// known to be there. Tracing works if there are none.
func (d *Diagnosis) Missing() []Feature {
	var out []Feature
	for _, f := range d.Features {
		if f.Required && f.State != Available {
			out = append(out, f)
		}
	}
	return out
}

// Diagnose finds out what this machine and this process can do. Features of
// the kernel are tried, not concluded from its version, on code of sbxtrace's
// own: no other process is touched. It takes about a quarter of a second, and
// longer on a machine whose CPUs are all busy; it needs no privileges, but can
// tell little without them.
func Diagnose(ctx context.Context) *Diagnosis {
	t := newTrials()
	defer t.close()
	return diagnose(ctx, thisHost(t.attempt))
}

// host is what a diagnosis looks at: the machine, or a test's idea of one. Its
// functions may be called at once.
type host struct {
	uid     int
	release func() (KernelVersion, string, error)
	cpus    int
	// capabilities are the effective ones, bit by bit (capability.h).
	capabilities func() (uint64, error)
	// read returns the content of a file, trimmed.
	read func(path string) (string, error)
	// env looks an environment variable up.
	env func(name string) string
	// attempt tries a feature of the kernel. It fails with ErrNotSupported if
	// the kernel has answered that it lacks it.
	attempt func(trial) (detail string, err error)
	// calibrate measures the cost of probes.
	calibrate func(context.Context) (Calibration, error)
}

// errNotConfigured says that a setting has a value under which something does
// not work.
var errNotConfigured = errors.New("setting is in the way")

// featureTest is a feature and how it is looked for.
type featureTest struct {
	Feature
	fix  string // what to do when it is Unsupported; empty: a newer kernel
	test func(h *host) (detail string, err error)
}

// featureTests are all features in the order in which they are shown.
func featureTests() []featureTest {
	var all []featureTest
	for _, tests := range [][]featureTest{capabilityTests(), kernelTests(), settingTests()} {
		all = append(all, tests...)
	}
	return all
}

func diagnose(ctx context.Context, h *host) *Diagnosis {
	d := &Diagnosis{Machine: describeMachine(h)}
	allowed := h.mayTrace()
	tests := featureTests()
	d.Features = make([]Feature, len(tests))
	// The kernel lets attachers wait: all at once takes no longer than one.
	parallel(len(tests), func(i int) {
		t, f := &tests[i], &d.Features[i]
		*f = t.Feature
		f.Detail, f.Err = t.test(h)
		judge(f, t, d.Machine.Kernel, allowed)
	})
	d.Calibration, d.CalibrationErr = h.calibrate(ctx)
	return d
}

// judge makes a state, and words for a person, of an answer.
func judge(f *Feature, t *featureTest, kernel KernelVersion, allowed bool) {
	err := f.Err
	switch {
	case err == nil:
		f.State = Available
		return
	case errors.Is(err, ErrPermission), errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES), errors.Is(err, fs.ErrPermission):
		f.State = Undetermined
		f.Detail = join(f.Detail, "not allowed to try"+expectation(f.Since, kernel))
		f.Fix = "sudo sbxtrace doctor"
		if allowed {
			f.Fix = "the capabilities are there: a security module, a seccomp filter or the container's runtime refuses it; in a container try --privileged"
		}
	case errors.Is(err, ErrNotSupported), errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, unix.ENOSYS),
		errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, errNotConfigured), errors.Is(err, errNotHeld):
		f.State = Unsupported
		if f.Detail == "" {
			f.Detail = "not in this kernel"
		}
		f.Fix = t.fix
		if f.Fix == "" && f.Since != "" {
			f.Fix = "Linux " + f.Since + " or newer"
		}
	default:
		f.State = Undetermined
		f.Detail = join(f.Detail, err.Error()+expectation(f.Since, kernel))
		f.Fix = t.fix
	}
}

// expectation is what the kernel's version says of a feature that could not be
// tried.
func expectation(since string, kernel KernelVersion) string {
	v, err := ParseKernelVersion(since)
	if since == "" || err != nil || kernel == (KernelVersion{}) {
		return ""
	}
	if kernel.AtLeast(v.Major, v.Minor) {
		return fmt.Sprintf("; Linux %s should have it", kernel)
	}
	return fmt.Sprintf("; Linux %s does not have it, unless it was backported", kernel)
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + ": " + b
}

func describeMachine(h *host) Machine {
	m := Machine{Arch: runtime.GOARCH, CPUs: h.cpus, UID: h.uid, Hypervisor: hypervisor(h), Container: container(h)}
	m.Kernel, m.Release, _ = h.release()
	m.UserNamespace = userNamespace(h)
	m.PIDNamespace = ownPIDNamespace(h)
	return m
}

// readInt reads a file with a number in it.
func (h *host) readInt(path string) (int, error) {
	text, err := h.read(path)
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return n, nil
}
