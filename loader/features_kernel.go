package loader

import "slices"

// trial is something that is tried out on the running kernel.
type trial int

const (
	tryBTF trial = iota
	tryProgram
	tryRingBuffer
	tryTaskTracepoints
	trySession
	tryPerfUprobe
	tryAttachCookie
	tryMulti
	tryMultiPID
	tryReturnProbe
	tryReturnSyscall
	tryNop
	tryNop5
	tryMapRecords
	tryPtrace
	tryHardwarePMU
)

// toLoad are the features without which the programs cannot be loaded.
var toLoad = []trial{tryBTF, tryProgram, tryRingBuffer, tryTaskTracepoints, tryAttachCookie}

// kernelTests try what the kernel can do: all of it, or these alone.
func kernelTests(these ...trial) []featureTest {
	attempt := func(t trial, f Feature, fix string) featureTest {
		if len(these) > 0 && !slices.Contains(these, t) {
			return featureTest{}
		}
		f.Group = GroupKernel
		return featureTest{Feature: f, fix: fix, test: func(h *host) (string, error) { return h.attempt(t) }}
	}
	all := []featureTest{
		attempt(tryBTF, Feature{ID: "btf", Name: "type information (BTF)", Required: true,
			Use: "programs that fit this kernel"}, "a kernel with CONFIG_DEBUG_INFO_BTF, as distributions build it"),
		attempt(tryProgram, Feature{ID: "bpf", Name: "BPF programs", Required: true,
			Use: "what runs when a probe is hit"}, "a kernel with CONFIG_BPF_SYSCALL"),
		attempt(tryRingBuffer, Feature{ID: "ringbuf", Name: "BPF ring buffer", Since: "5.8", Required: true,
			Use: "events in order from all CPUs"}, ""),
		attempt(tryTaskTracepoints, Feature{ID: "tp_btf", Name: "scheduler tracepoints", Since: "5.5", Required: true,
			Use: "follow forks, execs and exits"}, ""),
		attempt(tryAttachCookie, Feature{ID: "attach_cookie", Name: "attach cookies of uprobes", Since: "5.15", Required: true,
			Use: "tell sites apart"}, ""),
		attempt(trySession, Feature{ID: "programs", Name: "sbxtrace's own programs", Required: true,
			Use: "the verifier accepts them"}, "report it with the output of `sbxtrace doctor --format json`"),
		attempt(tryMulti, Feature{ID: "uprobe_multi", Name: "uprobe_multi links", Since: "6.6",
			Use: "attach thousands of functions at once"}, ""),
		attempt(tryMultiPID, Feature{ID: "uprobe_multi_pid", Name: "uprobe_multi by process", Since: "6.10",
			Use: "probes see all threads of one process"}, ""),
		attempt(tryPerfUprobe, Feature{ID: "uprobe_pmu", Name: "uprobes by perf events", Since: "4.17",
			Use: "attach where there are no uprobe_multi links"}, "a kernel with CONFIG_UPROBE_EVENTS"),
		attempt(tryReturnProbe, Feature{ID: "uretprobe", Name: "return probes",
			Use: "ends of calls in C, C++ and Rust"}, "a kernel with CONFIG_UPROBES"),
		attempt(tryReturnSyscall, Feature{ID: "uretprobe_syscall", Name: "return probes without a trap", Since: "6.11",
			Use: "cheaper ends of calls"}, ""),
		attempt(tryNop, Feature{ID: "emulated_nops", Name: "emulation of all nops", Since: "6.16",
			Use: "cheap probes at patchable entries"}, ""),
		attempt(tryNop5, Feature{ID: "optimized_nops", Name: "probes without a trap at 5-byte nops", Since: "6.18",
			Use: "cheaper probes at patchable entries"}, ""),
		attempt(tryMapRecords, Feature{ID: "mmap_records", Name: "records of new mappings", Since: "3.16",
			Use: "libraries loaded while tracing"}, "a kernel with CONFIG_PERF_EVENTS"),
		attempt(tryPtrace, Feature{ID: "ptrace", Name: "commands stopped by ptrace",
			Use: "`run` misses no call"}, ""),
		attempt(tryHardwarePMU, Feature{ID: "hardware_pmu", Name: "hardware performance counters",
			Use: "profiles by CPU cycles, else by CPU time"}, "virtual machines rarely have them: profiles go by CPU time"),
	}
	return slices.DeleteFunc(all, func(t featureTest) bool { return t.test == nil })
}
