package loader

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// fakeHost is a machine on which everything works.
func fakeHost() *host {
	files := map[string]string{
		"/proc/self/uid_map":                         "0          0 4294967295",
		"/proc/self/ns/pid":                          "pid:[4026531836]",
		"/proc/sys/kernel/unprivileged_bpf_disabled": "2",
		"/proc/sys/kernel/perf_event_paranoid":       "3",
		"/proc/sys/kernel/kptr_restrict":             "1",
		"/proc/sys/kernel/yama/ptrace_scope":         "1",
		"/sys/kernel/security/lockdown":              "[none] integrity confidentiality",
		"/proc/self/limits":                          "Max locked memory  65536  65536  bytes",
		"/proc/cpuinfo":                              "processor\t: 0\nflags\t\t: fpu vme\n",
	}
	return &host{
		uid:          0,
		cpus:         4,
		release:      func() (KernelVersion, string, error) { return KernelVersion{6, 18}, "6.18.1-test", nil },
		capabilities: func() (uint64, error) { return math.MaxUint64, nil },
		read:         readFrom(files),
		env:          func(string) string { return "" },
		attempt:      func(trial) (string, error) { return "", nil },
		calibrate:    func(context.Context) (Calibration, error) { return Calibration{500, 10_000, 370, 240}, nil },
	}
}

func readFrom(files map[string]string) func(string) (string, error) {
	return func(path string) (string, error) {
		content, ok := files[path]
		if !ok {
			return "", fmt.Errorf("open %s: %w", path, fs.ErrNotExist)
		}
		return content, nil
	}
}

// set replaces files of a host.
func (h *host) set(files map[string]string) {
	old := h.read
	h.read = func(path string) (string, error) {
		if content, ok := files[path]; ok {
			return content, nil
		}
		return old(path)
	}
}

// answer makes a trial end in an error.
func (h *host) answer(what trial, detail string, err error) {
	old := h.attempt
	h.attempt = func(t trial) (string, error) {
		if t == what {
			return detail, err
		}
		return old(t)
	}
}

func find(t *testing.T, d *Diagnosis, id string) Feature {
	t.Helper()
	for _, f := range d.Features {
		if f.ID == id {
			return f
		}
	}
	t.Fatalf("no feature %s", id)
	return Feature{}
}

func TestDiagnose(t *testing.T) {
	caps := func(bits ...int) func() (uint64, error) {
		var set uint64
		for _, b := range bits {
			set |= 1 << b
		}
		return func() (uint64, error) { return set, nil }
	}
	wrap := func(err error) error { return fmt.Errorf("try it: %w", err) }
	for _, tt := range []struct {
		name    string
		change  func(h *host)
		id      string
		state   State
		detail  string // part of it
		fix     string // part of it
		missing string // required ones, by id
	}{
		{"all is well", func(*host) {}, "bpf", Available, "", "", ""},
		{"old kernel", func(h *host) { h.answer(tryRingBuffer, "", wrap(ebpf.ErrNotSupported)) },
			"ringbuf", Unsupported, "not in this kernel", "Linux 5.8 or newer", "ringbuf"},
		{"optional", func(h *host) { h.answer(tryMulti, "", wrap(ErrNotSupported)) },
			"uprobe_multi", Unsupported, "not in this kernel", "Linux 6.6 or newer", ""},
		{"no such system call", func(h *host) { h.answer(tryProgram, "", wrap(unix.ENOSYS)) },
			"bpf", Unsupported, "not in this kernel", "CONFIG_BPF_SYSCALL", "bpf"},
		{"own words", func(h *host) { h.answer(tryBTF, "it is not there", ErrNotSupported) },
			"btf", Unsupported, "it is not there", "CONFIG_DEBUG_INFO_BTF", "btf"},
		{"no privileges", func(h *host) {
			h.capabilities = caps()
			h.answer(tryMulti, "", wrap(unix.EPERM))
		}, "uprobe_multi", Undetermined, "not allowed to try; Linux 6.18 should have it", "sudo sbxtrace doctor", "cap_bpf cap_perfmon"},
		{"no privileges, old kernel", func(h *host) {
			h.release = func() (KernelVersion, string, error) { return KernelVersion{6, 1}, "6.1.0", nil }
			h.capabilities = caps()
			h.answer(tryMulti, "", wrap(unix.EACCES))
		}, "uprobe_multi", Undetermined, "Linux 6.1 does not have it, unless it was backported", "", "cap_bpf cap_perfmon"},
		{"privileges that do not help", func(h *host) { h.answer(tryProgram, "", wrap(unix.EPERM)) },
			"bpf", Undetermined, "not allowed to try", "seccomp", "bpf"},
		{"something else", func(h *host) { h.answer(tryMapRecords, "", errors.New("a flood")) },
			"mmap_records", Undetermined, "a flood; Linux 6.18 should have it", "", ""},
		{"session refused", func(h *host) {
			h.answer(trySession, "", &FeatureError{Feature: "hope", Kernel: "7.0", Err: unix.EINVAL})
		}, "programs", Unsupported, "not in this kernel", "report it", "programs"},

		{"two capabilities do", func(h *host) { h.capabilities = caps(capBPF, capPerfmon) }, "cap_bpf", Available, "", "", ""},
		{"the old one does", func(h *host) { h.capabilities = caps(capSysAdmin) },
			"cap_perfmon", Available, "not held, CAP_SYS_ADMIN stands for it", "", ""},
		{"one is missing", func(h *host) { h.capabilities = caps(capBPF) },
			"cap_perfmon", Unsupported, "not held", "sudo", "cap_perfmon"},
		{"others' processes", func(h *host) { h.capabilities = caps(capBPF, capPerfmon) },
			"cap_sys_ptrace", Unsupported, "not held", "sudo", ""},
		{"unneeded", func(h *host) { h.capabilities = caps(capSysAdmin) },
			"cap_sys_resource", Available, "not needed", "", ""},
		{"needed before", func(h *host) {
			h.capabilities = caps(capSysAdmin)
			h.release = func() (KernelVersion, string, error) { return KernelVersion{5, 10}, "5.10", nil }
		}, "cap_sys_resource", Unsupported, "not held", "sudo", ""},

		{"lockdown", func(h *host) {
			h.set(map[string]string{"/sys/kernel/security/lockdown": "none integrity [confidentiality]"})
		}, "lockdown", Unsupported, "confidentiality", "boot without", ""},
		{"mild lockdown", func(h *host) {
			h.set(map[string]string{"/sys/kernel/security/lockdown": "none [integrity] confidentiality"})
		}, "lockdown", Available, "integrity", "", ""},
		{"no lockdown", func(h *host) { h.read = readFrom(nil) }, "lockdown", Available, "none", "", ""},
		{"strange lockdown", func(h *host) { h.set(map[string]string{"/sys/kernel/security/lockdown": "?"}) },
			"lockdown", Undetermined, `"?"`, "", ""},
		{"hidden pointers", func(h *host) { h.set(map[string]string{"/proc/sys/kernel/kptr_restrict": "2"}) },
			"kptr_restrict", Unsupported, "hidden", "sysctl kernel.kptr_restrict=1", ""},
		{"no number", func(h *host) { h.set(map[string]string{"/proc/sys/kernel/kptr_restrict": "x"}) },
			"kptr_restrict", Undetermined, `"x"`, "", ""},
		{"no ptrace", func(h *host) { h.set(map[string]string{"/proc/sys/kernel/yama/ptrace_scope": "3"}) },
			"ptrace_scope", Unsupported, "reboot", "sysctl", ""},
		{"ptrace for admins", func(h *host) { h.set(map[string]string{"/proc/sys/kernel/yama/ptrace_scope": "2"}) },
			"ptrace_scope", Available, "2", "", ""},
		{"ptrace for other admins", func(h *host) {
			h.set(map[string]string{"/proc/sys/kernel/yama/ptrace_scope": "2"})
			h.capabilities = caps(capBPF, capPerfmon)
		}, "ptrace_scope", Unsupported, "CAP_SYS_PTRACE", "sysctl", ""},
		{"no perf events", func(h *host) { h.read = readFrom(nil) }, "perf_event_paranoid", Unsupported, "", "", ""},
		{"paranoia", func(*host) {}, "perf_event_paranoid", Available, "3, does not apply", "", ""},
		{"locked memory", func(h *host) {
			h.release = func() (KernelVersion, string, error) { return KernelVersion{5, 10}, "5.10", nil }
		}, "memlock", Unsupported, "65536 bytes", "ulimit", ""},
		{"enough locked memory", func(h *host) {
			h.release = func() (KernelVersion, string, error) { return KernelVersion{5, 10}, "5.10", nil }
			h.set(map[string]string{"/proc/self/limits": "Max locked memory  unlimited  unlimited  bytes"})
		}, "memlock", Available, "unlimited", "", ""},
		{"rootless container", func(h *host) { h.set(map[string]string{"/proc/self/uid_map": "0 100000 65536"}) },
			"user_namespace", Unsupported, "its own", "rootless", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := fakeHost()
			tt.change(h)
			d := diagnose(t.Context(), h)
			f := find(t, d, tt.id)
			if f.State != tt.state || !strings.Contains(f.Detail, tt.detail) || !strings.Contains(f.Fix, tt.fix) {
				t.Errorf("%s is %v, detail %q, fix %q; want %v, %q, %q", tt.id, f.State, f.Detail, f.Fix, tt.state, tt.detail, tt.fix)
			}
			if (f.State == Available) != (f.Err == nil) || f.State == Available && f.Fix != "" {
				t.Errorf("%+v: an error and a fix go with what is not available", f)
			}
			var missing []string
			for _, m := range d.Missing() {
				missing = append(missing, m.ID)
			}
			if got := strings.Join(missing, " "); got != tt.missing {
				t.Errorf("missing: %q, want %q", got, tt.missing)
			}
		})
	}
}

// Ids are stable and unique; each feature is of a group and says what it is for
// or what was found.
func TestFeatureTable(t *testing.T) {
	d := diagnose(t.Context(), fakeHost())
	seen := map[string]bool{}
	for _, f := range d.Features {
		if seen[f.ID] || f.ID == "" || f.Name == "" || f.Group == "" {
			t.Errorf("%+v: id, name and group are needed, and the id is given once", f)
		}
		seen[f.ID] = true
		if f.Use == "" && f.Detail == "" {
			t.Errorf("%s says nothing", f.ID)
		}
		if _, err := ParseKernelVersion(f.Since); f.Since != "" && err != nil {
			t.Errorf("%s: %v", f.ID, err)
		}
	}
	groups := []FeatureGroup{}
	for _, f := range d.Features {
		groups = append(groups, f.Group)
	}
	if got := slices.Compact(groups); len(got) != 3 {
		t.Errorf("groups are not each in one piece: %v", got)
	}
}

func TestMachine(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files map[string]string
		env   string
		want  Machine
	}{
		{"bare", nil, "", Machine{}},
		{"kvm", map[string]string{"/sys/class/dmi/id/sys_vendor": "QEMU"}, "", Machine{Hypervisor: "QEMU"}},
		{"unknown vendor", map[string]string{"/proc/cpuinfo": "flags : fpu hypervisor lahf_lm"}, "", Machine{Hypervisor: "a hypervisor"}},
		{"vendor", map[string]string{"/proc/cpuinfo": "flags : fpu hypervisor", "/sys/class/dmi/id/sys_vendor": "Amazon EC2"}, "", Machine{Hypervisor: "Amazon EC2"}},
		{"metal of a cloud", map[string]string{"/sys/class/dmi/id/sys_vendor": "Amazon EC2"}, "", Machine{}},
		{"xen", map[string]string{"/sys/hypervisor/type": "xen"}, "", Machine{Hypervisor: "xen"}},
		{"docker", map[string]string{"/.dockerenv": ""}, "", Machine{Container: "docker"}},
		{"podman", map[string]string{"/run/.containerenv": ""}, "", Machine{Container: "podman"}},
		{"nspawn", map[string]string{"/run/systemd/container": "systemd-nspawn"}, "", Machine{Container: "systemd-nspawn"}},
		{"environment", nil, "lxc", Machine{Container: "lxc"}},
		{"kubernetes", map[string]string{"/proc/self/cgroup": "0::/kubepods.slice/pod1"}, "", Machine{Container: "kubernetes"}},
		{"namespaces", map[string]string{"/proc/self/ns/pid": "pid:[4026532000]", "/proc/self/uid_map": "0 1000 1"}, "",
			Machine{PIDNamespace: true, UserNamespace: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := fakeHost()
			h.set(tt.files)
			h.env = func(name string) string {
				if name == "container" {
					return tt.env
				}
				return ""
			}
			got := describeMachine(h)
			if got.Kernel != (KernelVersion{6, 18}) || got.Release != "6.18.1-test" || got.CPUs != 4 || got.Arch == "" {
				t.Errorf("%+v", got)
			}
			got = Machine{Hypervisor: got.Hypervisor, Container: got.Container, PIDNamespace: got.PIDNamespace, UserNamespace: got.UserNamespace}
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

// The real machine: what needs no version to be known must be there.
func TestDiagnoseHere(t *testing.T) {
	needRoot(t)
	d := Diagnose(t.Context())
	for _, f := range d.Features {
		t.Logf("%-24s %-13s %s %v", f.ID, f.State, f.Detail, f.Err)
		v, err := ParseKernelVersion(f.Since)
		if err != nil {
			continue
		}
		// Newer kernels than promised must have it, on the architecture it is of.
		if d.Machine.Kernel.AtLeast(v.Major, v.Minor) && f.State == Unsupported && d.Machine.Arch == "amd64" {
			t.Errorf("%s: Linux %s lacks what %s has: %v", f.ID, d.Machine.Kernel, f.Since, f.Err)
		}
		// Where the kernel cannot be asked otherwise, its version must agree.
		if !d.Machine.Kernel.AtLeast(v.Major, v.Minor) && f.State == Available {
			t.Errorf("%s: Linux %s has what only %s is said to have", f.ID, d.Machine.Kernel, f.Since)
		}
	}
	if missing := d.Missing(); len(missing) > 0 {
		t.Errorf("the other tests trace here, yet this is missing: %+v", missing)
	}
	if d.CalibrationErr != nil {
		t.Error(d.CalibrationErr)
	}
}

func TestMissingCapabilities(t *testing.T) {
	for _, tt := range []struct {
		bits []int
		want string
	}{
		{nil, "CAP_BPF CAP_PERFMON"},
		{[]int{capBPF}, "CAP_PERFMON"},
		{[]int{capPerfmon, capSysPtrace}, "CAP_BPF"},
		{[]int{capBPF, capPerfmon}, ""},
		{[]int{capSysAdmin}, ""},
	} {
		var set uint64
		for _, b := range tt.bits {
			set |= 1 << b
		}
		if got := strings.Join(missingIn(set), " "); got != tt.want {
			t.Errorf("%v: got %q, want %q", tt.bits, got, tt.want)
		}
	}
}

// What the kernel answered stays within reach, and out of sight.
func TestPermissionError(t *testing.T) {
	err := fmt.Errorf("load: %w", &permissionError{[]string{"CAP_BPF", "CAP_PERFMON"}, fmt.Errorf("map create: %w", unix.EPERM)})
	if !errors.Is(err, ErrPermission) || !errors.Is(err, unix.EPERM) {
		t.Errorf("%v loses its cause", err)
	}
	const want = "load: permission denied: it takes CAP_BPF and CAP_PERFMON: run it with sudo"
	if err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
}

func TestReadMapping(t *testing.T) {
	if _, err := findMapping("[no such mapping]"); err == nil {
		t.Error("found a mapping that is not there")
	}
	addr, err := findMapping("[vdso]")
	if err != nil {
		t.Fatal(err)
	}
	content, err := readMapping(addr, 4)
	if err != nil || string(content) != "\x7fELF" {
		t.Errorf("the vdso begins with %q, %v", content, err)
	}
	// Nothing is mapped in the first pages.
	if content, err := readMapping(4096, 4); err == nil {
		t.Errorf("read %q where nothing is mapped", content)
	}
}
