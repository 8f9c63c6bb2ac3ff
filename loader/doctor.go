package loader

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"
)

// State is the result of probing for a feature.
type State uint8

// States of a feature.
const (
	Undetermined State = iota // it could not be found out
	Available
	Unsupported
)

// String returns the state as written to JSON.
func (s State) String() string {
	switch s {
	case Available:
		return "yes"
	case Unsupported:
		return "no"
	}
	return "unknown"
}

// Feature is one thing that tracing uses, and whether this machine has it.
type Feature struct {
	Name     string
	State    State
	Detail   string // what was found
	Fix      string // what to do where it is missing; empty where nothing is
	Required bool   // nothing can be traced without it
}

// Features finds out, by trying, what this machine and this user can do.
func Features() []Feature {
	kernel, release, err := RunningKernel()
	out := []Feature{kernelFeature(kernel, release, err), privileges(), btf()}
	out = append(out,
		tried("BPF ring buffer", features.HaveMapType(ebpf.RingBuf), "5.8", true),
		tried("uprobes by perf events", uprobePMU(), "4.17", false),
		tried("uprobe_multi: attaching thousands of functions at once", features.HaveBPFLinkUprobeMulti(), "6.6", false),
		tracing(), mapRecords(),
	)
	out = append(out,
		since("fast return probes (a system call instead of a trap)", kernel, 6, 11, "return probes cost a trap more"),
		since("emulation of all nops", kernel, 6, 16, "nops count as single-stepped, except the one-byte one"),
		since("5-byte nops without a trap", kernel, 6, 18, "patchable function entries cost a trap"),
		lockdown(), pointers(), namespace(),
	)
	return out
}

// Usable reports whether everything required is there.
func Usable(fs []Feature) bool {
	for _, f := range fs {
		if f.Required && f.State == Unsupported {
			return false
		}
	}
	return true
}

func kernelFeature(v KernelVersion, release string, err error) Feature {
	f := Feature{Name: "Linux 5.15 or newer", Required: true, Detail: fmt.Sprintf("%s, %s", release, runtime.GOARCH)}
	switch {
	case err != nil:
		f.Detail = err.Error()
	case v.AtLeast(5, 15):
		f.State = Available
	default:
		f.State, f.Fix = Unsupported, "attach cookies of uprobes came with Linux 5.15"
	}
	return f
}

func privileges() Feature {
	f := Feature{Name: "privileges", State: Available, Required: true, Detail: "all that tracing takes"}
	if missing := MissingCapabilities(); len(missing) > 0 {
		f.State, f.Detail, f.Fix = Unsupported, "missing "+strings.Join(missing, ", "), "run it with sudo"
	}
	return f
}

func btf() Feature {
	f := Feature{Name: "kernel type information (BTF)", State: Available, Required: true, Detail: "/sys/kernel/btf/vmlinux"}
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		f.State, f.Detail, f.Fix = Unsupported, err.Error(), "use a kernel built with CONFIG_DEBUG_INFO_BTF, as distributions do"
	}
	return f
}

// tried turns the answer of an attempt into a Feature.
func tried(name string, err error, since string, required bool) Feature {
	f := Feature{Name: name, Required: required}
	switch {
	case err == nil:
		f.State = Available
	case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, os.ErrNotExist):
		f.State, f.Detail = Unsupported, "not in this kernel"
		f.Fix = "it takes Linux " + since + " or newer"
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		f.Detail, f.Fix = "not allowed to try", "run it with sudo"
	default:
		f.Detail = err.Error()
	}
	return f
}

func uprobePMU() error {
	_, err := os.Stat("/sys/bus/event_source/devices/uprobe/type")
	return err
}

// tracing loads the real programs and attaches those of the scheduler.
func tracing() Feature {
	f := Feature{Name: "loading and attaching sbxtrace's programs", Required: true}
	s, err := New(Config{Level: LevelCalls, Follow: true})
	if err == nil {
		f.State, f.Detail = Available, "the verifier accepts them"
		err = s.Close()
	}
	switch {
	case err == nil:
	case errors.Is(err, ErrPermission):
		f.Detail, f.Fix = "not allowed to try", "run it with sudo"
	default:
		f.State, f.Detail = Unsupported, err.Error()
	}
	return f
}

func mapRecords() Feature {
	w, err := WatchMaps(func(uint32) {})
	if err == nil {
		err = w.Close()
	}
	f := tried("seeing libraries as they are loaded", err, "3.16", false)
	if f.State == Undetermined && f.Fix == "" {
		f.Fix = "without it, functions of libraries loaded later are not traced"
	}
	return f
}

func since(name string, v KernelVersion, major, minor int, without string) Feature {
	f := Feature{Name: name, State: Available}
	if !v.AtLeast(major, minor) {
		f.State, f.Detail, f.Fix = Unsupported, without, fmt.Sprintf("it takes Linux %d.%d or newer", major, minor)
	}
	return f
}

func lockdown() Feature {
	f := Feature{Name: "no kernel lockdown against BPF", State: Available, Detail: "none"}
	b, err := os.ReadFile("/sys/kernel/security/lockdown")
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		f.State, f.Detail = Undetermined, err.Error()
	case strings.Contains(string(b), "[confidentiality]"):
		f.State, f.Detail, f.Fix = Unsupported, "confidentiality", "boot without lockdown=confidentiality"
	}
	return f
}

func pointers() Feature {
	f := Feature{Name: "kernel addresses are shown", State: Available}
	b, err := os.ReadFile("/proc/sys/kernel/kptr_restrict")
	if err != nil {
		f.State, f.Detail = Undetermined, err.Error()
	} else if strings.TrimSpace(string(b)) == "2" {
		f.State, f.Detail, f.Fix = Unsupported, "kptr_restrict is 2", "sysctl kernel.kptr_restrict=1"
	}
	return f
}

func namespace() Feature {
	f := Feature{Name: "process ids", State: Available, Detail: "those of the initial pid namespace"}
	_, ino, err := pidNamespace()
	switch {
	case err != nil:
		f.State, f.Detail = Undetermined, err.Error()
	case ino != 0:
		f.Detail = "those of this container: processes outside of it cannot be targets"
	}
	return f
}
