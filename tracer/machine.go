package tracer

import (
	"bytes"
	"os"
)

// virtualised reports whether the machine runs under a hypervisor, as the CPU
// says (x86: the flag of that name in /proc/cpuinfo) or the firmware does.
func virtualised() bool {
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil && bytes.Contains(info, []byte(" hypervisor")) {
		return true
	}
	_, err := os.Stat("/sys/hypervisor/type")
	return err == nil
}
