package loader

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrRate: the kernel takes no more samples a second.
var ErrRate = errors.New("beyond the kernel's limit")

// MaxSampleRate is how many samples a second the kernel takes on a CPU
// (kernel.perf_event_max_sample_rate).
func MaxSampleRate() (int, error) {
	data, err := os.ReadFile("/proc/sys/kernel/perf_event_max_sample_rate")
	if err != nil {
		return 0, fmt.Errorf("read the kernel's limit of samples: %w", err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return 0, fmt.Errorf("kernel.perf_event_max_sample_rate: %w", err)
	}
	return n, nil
}

// possibleCPUs is the number of CPUs that the kernel may ever have, whatever this
// process may run on.
func possibleCPUs() (int, error) {
	data, err := os.ReadFile("/sys/devices/system/cpu/possible")
	if err != nil {
		return 0, fmt.Errorf("count CPUs: %w", err)
	}
	ranges := strings.Split(strings.TrimSpace(string(data)), ",")
	last := ranges[len(ranges)-1]
	if _, end, ok := strings.Cut(last, "-"); ok {
		last = end
	}
	n, err := strconv.Atoi(last)
	if err != nil {
		return 0, fmt.Errorf("count CPUs: %q", data)
	}
	return n + 1, nil
}

// openClocks opens the cpu-clock software event on each CPU that is online: it
// ticks every period ns while the CPU runs anything. It needs no hardware.
func openClocks(period uint64) (fds []int, err error) {
	return openSoftware(unix.PERF_COUNT_SW_CPU_CLOCK, period, unix.PerfBitExcludeIdle)
}

// openFaults opens the page-faults software event on each CPU, for each period-th
// fault. Those of the kernel on behalf of a program are among them.
func openFaults(period uint64) (fds []int, err error) {
	return openSoftware(unix.PERF_COUNT_SW_PAGE_FAULTS, period, 0)
}

// openSoftware opens a software event on each CPU that is online, disabled.
func openSoftware(event, period, bits uint64) (fds []int, err error) {
	n, err := possibleCPUs()
	if err != nil {
		return nil, err
	}
	attr := unix.PerfEventAttr{
		Type:   unix.PERF_TYPE_SOFTWARE,
		Config: event,
		Size:   uint32(unsafe.Sizeof(unix.PerfEventAttr{})),
		Sample: period,
		Bits:   unix.PerfBitDisabled | bits,
	}
	for cpu := range n {
		fd, err := unix.PerfEventOpen(&attr, -1, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
		if errors.Is(err, unix.ENODEV) {
			continue // offline
		}
		if err != nil {
			closeAll(fds)
			return nil, fmt.Errorf("open a perf event on CPU %d: %w", cpu, explain(err))
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

func closeAll(fds []int) error {
	var errs []error
	for _, fd := range fds {
		errs = append(errs, unix.Close(fd))
	}
	return errors.Join(errs...)
}
