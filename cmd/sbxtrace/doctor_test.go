package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sbxtrace/sbxtrace/loader"
)

// someDiagnosis has features in every state.
func someDiagnosis() *loader.Diagnosis {
	refused := fmt.Errorf("load a program: %w", unix.EPERM)
	return &loader.Diagnosis{
		Machine: loader.Machine{Release: "6.1.0-32-amd64", Arch: "amd64", CPUs: 2, UID: 1000, Hypervisor: "QEMU", Container: "docker", PIDNamespace: true},
		Features: []loader.Feature{
			{ID: "cap_bpf", Group: loader.GroupRights, Name: "CAP_BPF", Use: "load BPF programs", Required: true, State: loader.Available},
			{ID: "cap_perfmon", Group: loader.GroupRights, Name: "CAP_PERFMON", Use: "attach them to other processes", Required: true,
				State: loader.Available, Detail: "not held, CAP_SYS_ADMIN stands for it"},
			{ID: "ringbuf", Group: loader.GroupKernel, Name: "BPF ring buffer", Use: "events in order from all CPUs", Since: "5.8", Required: true, State: loader.Available},
			{ID: "uprobe_multi", Group: loader.GroupKernel, Name: "uprobe_multi links", Use: "attach thousands of functions at once", Since: "6.6",
				State: loader.Unsupported, Detail: "not in this kernel", Fix: "Linux 6.6 or newer", Err: loader.ErrNotSupported},
			{ID: "programs", Group: loader.GroupKernel, Name: "sbxtrace's own programs", Use: "the verifier accepts them", Required: true, State: loader.Available},
			{ID: "uprobe_pmu", Group: loader.GroupKernel, Name: "uprobes by perf events", Use: "attach where there are no uprobe_multi links", Since: "4.17",
				State: loader.Undetermined, Detail: "not allowed to try", Fix: "sudo sbxtrace doctor", Err: refused},
			{ID: "kptr_restrict", Group: loader.GroupSettings, Name: "kernel.kptr_restrict", Use: "names of kernel functions",
				State: loader.Unsupported, Detail: "2, hidden", Fix: "sudo sysctl kernel.kptr_restrict=1", Err: errors.New("setting is in the way")},
		},
		Calibration: loader.Calibration{EntryEmulatedNS: 500, EntrySteppedNS: 10_200, EntryNop5NS: 370, ReturnNS: 240},
	}
}

func TestDoctorText(t *testing.T) {
	change := func(id string, to loader.State) func(*loader.Diagnosis) {
		return func(d *loader.Diagnosis) {
			for i := range d.Features {
				if d.Features[i].ID == id {
					d.Features[i].State = to
				}
			}
		}
	}
	for _, tt := range []struct {
		name   string
		change func(*loader.Diagnosis)
		status error
	}{
		{"doctor.txt", func(*loader.Diagnosis) {}, nil},
		{"doctor-lacking.txt", change("ringbuf", loader.Unsupported), exitStatus(1)},
		{"doctor-unknown.txt", func(d *loader.Diagnosis) {
			change("ringbuf", loader.Undetermined)(d)
			d.CalibrationErr = fmt.Errorf("load an empty program: %w", unix.EPERM)
		}, exitStatus(1)},
		{"doctor-rights.txt", func(d *loader.Diagnosis) {
			change("cap_bpf", loader.Unsupported)(d)
			change("ringbuf", loader.Undetermined)(d)
			d.CalibrationErr = errors.New("no CPU")
		}, exitStatus(1)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := someDiagnosis()
			tt.change(d)
			var b bytes.Buffer
			if err := doctor(&output{Writer: &b}, d, false); err != tt.status {
				t.Errorf("got %v, want %v", err, tt.status)
			}
			checkGolden(t, tt.name, b.Bytes())

			var colored bytes.Buffer
			_ = doctor(&output{Writer: &colored, color: true}, d, false) // its status was looked at
			if plain := stripColors(colored.String()); plain != b.String() {
				t.Errorf("colours change the text:\n%s", plain)
			}
		})
	}
}

func stripColors(s string) string {
	for _, c := range []string{"\x1b[32m", "\x1b[31m", "\x1b[33m", "\x1b[1m", "\x1b[2m", "\x1b[0m"} {
		s = strings.ReplaceAll(s, c, "")
	}
	return s
}

func TestDoctorJSON(t *testing.T) {
	var b bytes.Buffer
	if err := doctor(&output{Writer: &b}, someDiagnosis(), true); err != nil {
		t.Fatal(err)
	}
	checkGolden(t, "doctor.json", b.Bytes())
	for line := range strings.Lines(b.String()) {
		if !strings.HasPrefix(line, `{"type":"`) || !json.Valid([]byte(line)) {
			t.Errorf("not an object whose type comes first: %s", line)
		}
	}
}

// A reader that goes away is no failure.
func TestDoctorBrokenPipe(t *testing.T) {
	err := doctor(&output{Writer: brokenPipe{}}, someDiagnosis(), false)
	if !errors.Is(err, unix.EPIPE) {
		t.Errorf("got %v", err)
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, unix.EPIPE }
