package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// machine names the machine in words.
func machine() string {
	var u unix.Utsname
	_ = unix.Uname(&u)
	kernel := strings.TrimRight(string(u.Release[:]), "\x00")
	kernel, _, _ = strings.Cut(kernel, "-")
	cpu, kind := "unknown CPU", "bare metal"
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, rest, ok := strings.Cut(string(info), "model name\t: "); ok {
			cpu, _, _ = strings.Cut(rest, "\n")
		}
		if strings.Contains(string(info), " hypervisor") {
			kind = "virtual machine"
		}
	}
	return fmt.Sprintf("Machine: a %s with %d CPUs (%s), Linux %s. The figures belong to it; the ratios travel.", kind, runtime.NumCPU(), cpu, kernel)
}
