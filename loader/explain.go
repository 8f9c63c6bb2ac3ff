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

// Capabilities that tracing takes (capability.h), with what each is for.
var needed = []struct {
	bit  uint
	name string
}{
	{39, "CAP_BPF"},
	{38, "CAP_PERFMON"},
	{21, "CAP_SYS_ADMIN"},
}

// explain makes a refusal of the kernel's an error that says what to do.
func explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		if missing := MissingCapabilities(); len(missing) > 0 {
			return fmt.Errorf("%w: needs %s: run it with sudo (%w)", ErrPermission, strings.Join(missing, ", "), err)
		}
		return fmt.Errorf("%w: %w", ErrPermission, err)
	case errors.Is(err, ebpf.ErrNotSupported):
		return &FeatureError{Feature: "support for a BPF feature that sbxtrace uses", Kernel: "5.15", Err: err}
	}
	return err
}

// MissingCapabilities names the capabilities that tracing takes and this
// process lacks. CAP_SYS_ADMIN stands for all of them.
func MissingCapabilities() []string {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return nil
	}
	_, rest, ok := strings.Cut(string(status), "\nCapEff:")
	if !ok {
		return nil
	}
	field, _, _ := strings.Cut(rest, "\n")
	have, err := strconv.ParseUint(strings.TrimSpace(field), 16, 64)
	if err != nil {
		return nil
	}
	var missing []string
	for _, c := range needed {
		if have&(1<<c.bit) == 0 {
			missing = append(missing, c.name)
		}
	}
	return missing
}
