package loader

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Bits of a record's length word (include/uapi/linux/bpf.h, BPF_RINGBUF_*).
const (
	ringBusy    = 1 << 31
	ringDiscard = 1 << 30
	ringHeader  = 8
)

// ring reads a BPF ring buffer in place: records are handed out as slices of
// the kernel's memory and the consumer position moves once per batch, which is
// what keeps up with millions of events a second.
type ring struct {
	fd       int
	epoll    int
	wake     int // eventfd that interrupts wait
	size     uint64
	consumer []byte
	producer []byte // position page, then the data twice
	data     []byte
}

// newRing maps the ring buffer behind fd. size is its max_entries in bytes.
func newRing(fd, size int) (*ring, error) {
	page := os.Getpagesize()
	r := &ring{fd: fd, epoll: -1, wake: -1, size: uint64(size)}
	var err error
	if r.consumer, err = unix.Mmap(fd, 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("map ring buffer consumer page: %w", err)
	}
	if r.producer, err = unix.Mmap(fd, int64(page), page+2*size, unix.PROT_READ, unix.MAP_SHARED); err != nil {
		r.close()
		return nil, fmt.Errorf("map ring buffer data: %w", err)
	}
	r.data = r.producer[page:]
	if r.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		r.close()
		return nil, fmt.Errorf("create epoll: %w", err)
	}
	if r.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		r.close()
		return nil, fmt.Errorf("create eventfd: %w", err)
	}
	for _, f := range []int{fd, r.wake} {
		ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(f)}
		if err := unix.EpollCtl(r.epoll, unix.EPOLL_CTL_ADD, f, &ev); err != nil {
			r.close()
			return nil, fmt.Errorf("watch ring buffer: %w", err)
		}
	}
	return r, nil
}

func (r *ring) close() error {
	var errs []error
	for _, m := range [][]byte{r.consumer, r.producer} {
		if m != nil {
			errs = append(errs, unix.Munmap(m))
		}
	}
	r.consumer, r.producer, r.data = nil, nil, nil
	for _, f := range []int{r.epoll, r.wake} {
		if f >= 0 {
			errs = append(errs, unix.Close(f))
		}
	}
	r.epoll, r.wake = -1, -1
	return errors.Join(errs...)
}

// interrupt ends a wait at once.
func (r *ring) interrupt() {
	one := [8]byte{1}
	_, _ = unix.Write(r.wake, one[:])
}

// wait returns when the kernel asks for attention, when interrupted, or after
// the given time. Call events ask for none: they are collected by the timeout.
func (r *ring) wait(d time.Duration) error {
	var evs [2]unix.EpollEvent
	_, err := unix.EpollWait(r.epoll, evs[:], int(d.Milliseconds()))
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("wait for events: %w", err)
	}
	return nil
}

// read hands every record that is there now to handle and returns their bytes.
// The slice is the kernel's memory: it is valid only during the call.
func (r *ring) read(handle func([]byte)) uint64 {
	cons := (*uint64)(unsafe.Pointer(&r.consumer[0]))
	prod := atomic.LoadUint64((*uint64)(unsafe.Pointer(&r.producer[0])))
	pos := atomic.LoadUint64(cons)
	start, released := pos, pos
	for pos < prod {
		head := (*uint32)(unsafe.Pointer(&r.data[pos&(r.size-1)]))
		n := atomic.LoadUint32(head)
		if n&ringBusy != 0 {
			break // reserved and not yet submitted: the rest comes next time
		}
		length := uint64(n &^ (ringBusy | ringDiscard))
		if n&ringDiscard == 0 {
			at := (pos + ringHeader) & (r.size - 1)
			handle(r.data[at : at+length : at+length])
		}
		pos += ringHeader + (length+7)&^7
		// Room is given back in steps: producers see it in time, and the
		// cache line does not bounce at every record.
		if pos-released >= r.size/64 {
			atomic.StoreUint64(cons, pos)
			released = pos
		}
	}
	atomic.StoreUint64(cons, pos)
	return pos - start
}
