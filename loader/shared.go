package loader

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// counters is an array map of 8-byte values, mapped into memory: reading it
// takes no system call, so that the governor can look often.
type counters struct {
	bytes  []byte
	values []uint64
}

func mapCounters(m *ebpf.Map) (*counters, error) {
	n := int(m.MaxEntries())
	b, err := unix.Mmap(m.FD(), 0, n*8, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s into memory: %w", m, err)
	}
	return &counters{bytes: b, values: unsafe.Slice((*uint64)(unsafe.Pointer(&b[0])), n)}, nil
}

func (c *counters) load(i int) uint64     { return atomic.LoadUint64(&c.values[i]) }
func (c *counters) store(i int, v uint64) { atomic.StoreUint64(&c.values[i], v) }

func (c *counters) close() error {
	if c == nil || c.bytes == nil {
		return nil
	}
	b := c.bytes
	c.bytes, c.values = nil, nil
	return unix.Munmap(b)
}
