package loader

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// What a kernel lacks is named with what has it: its version if it is too old,
// else what it was built without.
func TestLacking(t *testing.T) {
	for _, tt := range []struct {
		name   string
		kernel KernelVersion
		answer func(h *host)
		want   string // of the error; empty: none
	}{
		{"nothing", KernelVersion{6, 1}, func(*host) {}, ""},
		{"too old", KernelVersion{5, 4}, func(h *host) { h.answer(tryRingBuffer, "", ebpf.ErrNotSupported) },
			"has no BPF ring buffer: it takes Linux 5.8 or newer (not supported)"},
		{"built without", KernelVersion{6, 1}, func(h *host) { h.answer(tryBTF, "vmlinux is not there", ErrNotSupported) },
			"has no type information (BTF): it takes a kernel with CONFIG_DEBUG_INFO_BTF, as distributions build it (vmlinux is not there)"},
		{"disabled", KernelVersion{6, 1}, func(h *host) { h.answer(tryRingBuffer, "", ebpf.ErrNotSupported) },
			"has no BPF ring buffer: it takes a kernel, or a container, in which nothing disables it (not supported)"},
		{"the first of several", KernelVersion{5, 4}, func(h *host) {
			h.answer(tryAttachCookie, "", ErrNotSupported)
			h.answer(tryTaskTracepoints, "", ErrNotSupported)
		}, "has no scheduler tracepoints: it takes Linux 5.5 or newer"},
		{"not suspected", KernelVersion{6, 1}, func(h *host) { h.answer(tryMulti, "", ErrNotSupported) }, ""},
		{"uncertain", KernelVersion{6, 1}, func(h *host) { h.answer(tryRingBuffer, "", unix.EIO) }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := fakeHost()
			tt.answer(h)
			err := lacking(h, tt.kernel, toLoad)
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("lacking: %v", err)
			case tt.want != "" && (!errors.Is(err, ErrNotSupported) || !strings.Contains(fmt.Sprint(err), tt.want)):
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

func TestExplain(t *testing.T) {
	_, release, err := RunningKernel()
	if err != nil {
		t.Fatal(err)
	}
	version := strings.Join(strings.SplitN(release, ".", 3)[:2], ".")
	for _, tt := range []struct {
		err  error
		is   error
		says string
	}{
		{fmt.Errorf("create map: %w", unix.ENOMEM), unix.ENOMEM, "create map: cannot allocate memory: the kernel has no room for it: try a smaller event buffer"},
		{unix.EMFILE, unix.EMFILE, "too many open files: select fewer functions, or allow more (ulimit -n)"},
		{unix.EPERM, ErrPermission, "permission denied"},
		{unix.EACCES, unix.EACCES, "permission denied"},
		{ebpf.ErrNotSupported, ErrNotSupported, "this kernel, Linux " + version + ", has no"},
		{os.ErrNotExist, os.ErrNotExist, "file does not exist"},
		{&permissionError{missing: []string{"CAP_X"}}, ErrPermission, "it takes CAP_X: run it with sudo"},
		{&FeatureError{Feature: "hope", Takes: "patience", Err: unix.EINVAL}, ErrNotSupported, "has no hope: it takes patience (invalid argument)"},
	} {
		got := explain(fmt.Errorf("attach: %w", tt.err))
		if !errors.Is(got, tt.is) || !strings.Contains(fmt.Sprint(got), tt.says) {
			t.Errorf("%v: %v, want %q", tt.err, got, tt.says)
		}
	}
	if err := explain(nil); err != nil {
		t.Error(err)
	}
}
