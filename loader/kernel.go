package loader

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// KernelVersion is the first two numbers of a kernel's release. The zero value
// is older than every kernel.
type KernelVersion struct{ Major, Minor int }

// AtLeast reports whether v is major.minor or newer.
func (v KernelVersion) AtLeast(major, minor int) bool {
	return v.Major > major || v.Major == major && v.Minor >= minor
}

// String is "6.18".
func (v KernelVersion) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

// ParseKernelVersion reads a release as uname(2) gives it: "6.1.0-32-amd64".
func ParseKernelVersion(release string) (KernelVersion, error) {
	var v KernelVersion
	if _, err := fmt.Sscanf(release, "%d.%d", &v.Major, &v.Minor); err != nil {
		return KernelVersion{}, fmt.Errorf("kernel release %q: %w", release, err)
	}
	return v, nil
}

// RunningKernel is the version of the running kernel and its full release.
func RunningKernel() (KernelVersion, string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return KernelVersion{}, "", fmt.Errorf("read kernel version: %w", err)
	}
	release := strings.TrimRight(string(u.Release[:]), "\x00")
	v, err := ParseKernelVersion(release)
	return v, release, err
}
