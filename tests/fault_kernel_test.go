package tests

import (
	"os/exec"
	"syscall"
	"testing"

	"github.com/sbxtrace/sbxtrace/internal/targets"
)

// What the kernel lacks or refuses is said, with what to do about it, and what
// can be done without it is done.
func TestFaultKernelLacks(t *testing.T) {
	p := start(t, targets.Build(t, "calls"))
	attaching := func(args ...string) *invocation {
		return attachTo(p.PID(), append(args, "--summary", "--duration", "10ms", "outer")...)
	}
	run := typed("run", "-o", "/dev/null", "--", "true")
	multi := kernelAtLeast(t, 6, 6)
	for _, tt := range []struct {
		name    string
		lacking string
		do      *invocation
		status  int
		says    []string
		multi   bool // only where the kernel has uprobe_multi
	}{
		{name: "seccomp filter of a container", lacking: "bpf", do: attaching(), status: 1,
			says: []string{"permission denied, although the capabilities are there", "a seccomp filter", "--privileged"}},
		{name: "BPF", lacking: "no bpf", do: attaching(), status: 1,
			says: []string{"has no BPF programs: it takes a kernel with CONFIG_BPF_SYSCALL"}},
		{name: "BTF", lacking: "/sys/kernel/btf", do: attaching(), status: 1,
			says: []string{"has no type information (BTF)", "CONFIG_DEBUG_INFO_BTF", "/sys/kernel/btf/vmlinux is not there"}},
		{name: "maps", lacking: "no maps", do: attaching(), status: 1, says: []string{"has no BPF ring buffer"}},
		{name: "uprobe_multi, asked for", lacking: "no links", do: attaching("--attach-with", "uprobe-multi"), status: 1,
			says: []string{"has no uprobe_multi links: it takes Linux 6.6 or newer"}},
		{name: "perf events for uprobes", lacking: "/sys/bus/event_source", do: attaching("--attach-with", "perf-event"), status: 1,
			says: []string{"has no uprobes by perf events", "CONFIG_UPROBE_EVENTS"}},
		{name: "perf events for libraries", lacking: "no perf events", do: attaching(), multi: true,
			says: []string{"libraries loaded from now on are not seen", "attached: 1 function"}},
		{name: "perf events in a container", lacking: "perf_event_open", do: attaching("--attach-with", "perf-event"), status: 1,
			says: []string{"permission denied, although the capabilities are there"}},
		{name: "descriptors", lacking: "no descriptors", do: attaching(), status: 1, multi: true,
			says: []string{"too many open files", "ulimit -n"}},
		{name: "ptrace", lacking: "ptrace", do: run, status: 1, says: []string{"start ", "operation not permitted", "held by ptrace"}},
		{name: "proc", lacking: "/proc", do: run, status: 1, says: []string{"/proc, which is not mounted"}},
	} {
		if tt.multi && !multi {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			i := *tt.do
			refusing(t, &i, tt.lacking).gives(t, tt.status, tt.says...)
		})
	}
	unharmed(t, p)
}

// nobody is a user without privileges.
const nobody = 65534

// Bits of capability.h.
const (
	capSysPtrace = 19
	capPerfmon   = 38
	capBPF       = 39
)

// Without capabilities the message names those that are wanting, and no other.
func TestFaultCapabilities(t *testing.T) {
	needRoot(t)
	theirs := start(t, targets.Build(t, "calls"))
	cmd := exec.Command(targets.Build(t, "calls"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	mine := targets.StartCmd(t, cmd)
	mine.Ready()
	attaching := func(p *targets.Process, caps ...uintptr) *invocation {
		i := attachTo(p.PID(), "--summary", "--duration", "10ms")
		i.user, i.caps, i.dir = nobody, caps, "/"
		return i
	}
	for _, tt := range []struct {
		name string
		do   *invocation
		says string
	}{
		{"none", attaching(mine), "load BPF programs: permission denied: it takes CAP_BPF and CAP_PERFMON: run it with sudo\n"},
		{"no CAP_PERFMON", attaching(mine, capBPF), "permission denied: it takes CAP_PERFMON: run it with sudo\n"},
		{"no CAP_BPF", attaching(mine, capPerfmon), "permission denied: it takes CAP_BPF: run it with sudo\n"},
		{"no CAP_SYS_PTRACE", attaching(theirs, capBPF, capPerfmon), "a process of another user takes CAP_SYS_PTRACE: run it with sudo"},
		{"none, another's process", attaching(theirs), "a process of another user takes CAP_BPF and CAP_PERFMON and CAP_SYS_PTRACE: run it with sudo"},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.do.gives(t, 1, tt.says) })
	}
	t.Run("enough", func(t *testing.T) {
		if !kernelAtLeast(t, 6, 6) {
			attaching(mine, capBPF, capPerfmon).gives(t, 1, "CAP_SYS_ADMIN for probes by perf events")
			return
		}
		attaching(mine, capBPF, capPerfmon).gives(t, 0, "attached: ")
		attaching(theirs, capBPF, capPerfmon, capSysPtrace).gives(t, 0, "attached: ")
	})
	unharmed(t, mine)
	unharmed(t, theirs)
}
