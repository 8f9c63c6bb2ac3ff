package tracer

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime is the CPU time that all threads of a process have used, exact to
// the nanosecond. The clock's number is that of clock_getcpuclockid(3):
// include/linux/posix-timers_types.h, CPUCLOCK_SCHED.
func cpuTime(pid uint32) (time.Duration, error) {
	const cpuClockSched = 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|cpuClockSched), &ts); err != nil {
		return 0, fmt.Errorf("read CPU time of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}
