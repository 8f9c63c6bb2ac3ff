package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// settingTests look at what an administrator has set.
func settingTests() []featureTest {
	setting := func(id, name, use, fix string, test func(*host) (string, error)) featureTest {
		return featureTest{Feature: Feature{ID: id, Group: GroupSettings, Name: name, Use: use}, fix: fix, test: test}
	}
	return []featureTest{
		setting("lockdown", "kernel lockdown", "", "boot without lockdown=confidentiality", lockdown),
		setting("unprivileged_bpf_disabled", "kernel.unprivileged_bpf_disabled", "", "", unprivilegedBPF),
		setting("perf_event_paranoid", "kernel.perf_event_paranoid", "", "", perfParanoid),
		setting("kptr_restrict", "kernel.kptr_restrict", "names of kernel functions", "sudo sysctl kernel.kptr_restrict=1", kptrRestrict),
		setting("ptrace_scope", "kernel.yama.ptrace_scope", "", "sudo sysctl kernel.yama.ptrace_scope=1", ptraceScope),
		setting("memlock", "limit on locked memory", "", "ulimit -l unlimited", memlock),
		setting("user_namespace", "user namespace", "", "run it outside of the container, or in one without a user namespace (not rootless)", initialUserNamespace),
	}
}

// lockdown reads the mode of the lockdown security module, "none [integrity]
// confidentiality" (kernel_lockdown(7)). Integrity forbids no more than to
// write to user memory; confidentiality forbids to read the kernel's, in which
// programs look for their thread.
func lockdown(h *host) (string, error) {
	modes, err := h.read("/sys/kernel/security/lockdown")
	if errors.Is(err, fs.ErrNotExist) {
		return "none", nil
	}
	if err != nil {
		return "", err
	}
	_, rest, _ := strings.Cut(modes, "[")
	mode, _, ok := strings.Cut(rest, "]")
	switch {
	case !ok:
		return "", fmt.Errorf("unknown modes %q", modes)
	case mode == "confidentiality":
		return mode, errNotConfigured
	}
	return mode, nil
}

func unprivilegedBPF(h *host) (string, error) {
	n, err := h.readInt("/proc/sys/kernel/unprivileged_bpf_disabled")
	if errors.Is(err, fs.ErrNotExist) {
		return "not there", nil
	}
	if err != nil {
		return "", err
	}
	return strconv.Itoa(n) + ", does not apply to CAP_BPF", nil
}

func perfParanoid(h *host) (string, error) {
	n, err := h.readInt("/proc/sys/kernel/perf_event_paranoid")
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("a kernel without perf events: %w", ErrNotSupported)
	}
	if err != nil {
		return "", err
	}
	return strconv.Itoa(n) + ", does not apply to CAP_PERFMON", nil
}

func kptrRestrict(h *host) (string, error) {
	n, err := h.readInt("/proc/sys/kernel/kptr_restrict")
	if err != nil {
		return "", err
	}
	if n >= 2 {
		return fmt.Sprintf("%d, names of kernel functions are hidden from everybody", n), errNotConfigured
	}
	return strconv.Itoa(n), nil
}

// ptraceScope judges kernel.yama.ptrace_scope (Documentation/admin-guide/LSM/
// Yama.rst) for `run`, which stops its command by ptrace: a child may be traced
// at 0 and 1, with CAP_SYS_PTRACE at 2, and nothing at 3.
func ptraceScope(h *host) (string, error) {
	n, err := h.readInt("/proc/sys/kernel/yama/ptrace_scope")
	if errors.Is(err, fs.ErrNotExist) {
		return "not there", nil
	}
	if err != nil {
		return "", err
	}
	set, err := h.capabilities()
	switch {
	case n >= 3:
		return fmt.Sprintf("%d, `run` may miss the first calls; it takes a reboot to lower it", n), errNotConfigured
	case n == 2 && err != nil:
		return "", err
	case n == 2 && !has(set, capSysPtrace):
		return "2, `run` takes CAP_SYS_PTRACE", errNotConfigured
	}
	return strconv.Itoa(n), nil
}

// memlock looks at the limit that bounded BPF maps before Linux 5.11.
func memlock(h *host) (string, error) {
	v, _, err := h.release()
	switch {
	case err != nil:
		return "", err
	case v.AtLeast(5, 11):
		return "does not apply from Linux 5.11 on", nil
	}
	limits, err := h.read("/proc/self/limits")
	if err != nil {
		return "", err
	}
	_, rest, ok := strings.Cut(limits, "Max locked memory")
	fields := strings.Fields(rest)
	if !ok || len(fields) == 0 {
		return "", errors.New("no line for it in /proc/self/limits")
	}
	if fields[0] != "unlimited" {
		return fields[0] + " bytes", errNotConfigured
	}
	return fields[0], nil
}

func initialUserNamespace(h *host) (string, error) {
	if userNamespace(h) {
		return "one of its own: capabilities do not count for BPF there", errNotConfigured
	}
	return "the initial one", nil
}

// ownPIDNamespace reports whether this process is in another pid namespace than
// the initial one.
func ownPIDNamespace(h *host) bool {
	text, err := h.read("/proc/self/ns/pid")
	return err == nil && text != fmt.Sprintf("pid:[%d]", initialPIDNamespace)
}

// hypervisor names what the machine runs under, empty for bare metal: the CPU
// has a flag for it on x86, the firmware's tables name the vendor.
func hypervisor(h *host) string {
	if kind, err := h.read("/sys/hypervisor/type"); err == nil && kind != "" {
		return kind
	}
	info, _ := h.read("/proc/cpuinfo")
	flagged := false
	for line := range strings.Lines(info) {
		name, flags, _ := strings.Cut(line, ":")
		if strings.TrimSpace(name) == "flags" {
			flagged = strings.Contains(" "+strings.TrimSpace(flags)+" ", " hypervisor ")
			break
		}
	}
	vendor, _ := h.read("/sys/class/dmi/id/sys_vendor")
	product, _ := h.read("/sys/class/dmi/id/product_name")
	for _, known := range []struct{ sign, name string }{
		{"QEMU", "QEMU"}, {"KVM", "KVM"}, {"VMware", "VMware"}, {"VirtualBox", "VirtualBox"}, {"innotek", "VirtualBox"},
		{"Virtual Machine", "Hyper-V"}, {"Google Compute Engine", "Google Compute Engine"}, {"Xen", "Xen"},
		{"Parallels", "Parallels"}, {"Firecracker", "Firecracker"}, {"OpenStack", "OpenStack"}, {"Apple Virtualization", "Apple Virtualization"},
	} {
		if strings.Contains(vendor, known.sign) || strings.Contains(product, known.sign) {
			return known.name
		}
	}
	switch {
	case !flagged:
		return ""
	case vendor != "":
		return vendor
	}
	return "a hypervisor"
}

// container names the kind of container this process is in, empty if there is
// no sign of one.
func container(h *host) string {
	if kind, err := h.read("/run/systemd/container"); err == nil && kind != "" {
		return kind
	}
	if kind := h.env("container"); kind != "" {
		return kind
	}
	for _, sign := range []struct{ path, kind string }{{"/.dockerenv", "docker"}, {"/run/.containerenv", "podman"}} {
		if _, err := h.read(sign.path); err == nil || errors.Is(err, unix.EACCES) {
			return sign.kind
		}
	}
	groups, _ := h.read("/proc/self/cgroup")
	for _, sign := range []struct{ part, kind string }{
		{"kubepods", "kubernetes"}, {"docker", "docker"}, {"containerd", "containerd"}, {"/lxc", "lxc"}, {"libpod", "podman"},
	} {
		if strings.Contains(groups, sign.part) {
			return sign.kind
		}
	}
	return ""
}
