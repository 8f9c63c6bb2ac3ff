package loader

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// MapWatcher reports executable files as processes map them: libraries loaded
// by dlopen, programs started by exec. It listens to the kernel's own records
// (perf_event_open(2), PERF_RECORD_MMAP2), which cost a target nothing but
// when it maps.
type MapWatcher struct {
	fds   []int
	rings [][]byte
	epoll int
	wake  int
	done  sync.WaitGroup
	once  sync.Once
}

// perfPages is the size of each CPU's record buffer in pages, a power of two.
const perfPages = 16

// WatchMaps calls mapped for each new executable file mapping of any process,
// on a goroutine of its own, until Close.
func WatchMaps(mapped func(pid uint32)) (*MapWatcher, error) {
	w := &MapWatcher{epoll: -1, wake: -1}
	if err := w.open(); err != nil {
		w.Close()
		return nil, fmt.Errorf("watch memory mappings: %w", err)
	}
	w.done.Go(func() { w.run(mapped) })
	return w, nil
}

func (w *MapWatcher) open() error {
	var err error
	if w.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	if w.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
		return err
	}
	if err := w.watch(w.wake, -1); err != nil {
		return err
	}
	attr := unix.PerfEventAttr{
		Type:   unix.PERF_TYPE_SOFTWARE,
		Config: unix.PERF_COUNT_SW_DUMMY,
		Size:   uint32(unsafe.Sizeof(unix.PerfEventAttr{})),
		Bits:   unix.PerfBitMmap | unix.PerfBitMmap2 | unix.PerfBitWatermark,
		Wakeup: 1,
	}
	for cpu := range runtime.NumCPU() {
		fd, err := unix.PerfEventOpen(&attr, -1, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
		if errors.Is(err, unix.ENODEV) {
			continue // an offline CPU
		}
		if err != nil {
			return err
		}
		w.fds = append(w.fds, fd)
		mem, err := unix.Mmap(fd, 0, (1+perfPages)*os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return err
		}
		w.rings = append(w.rings, mem)
		if err := w.watch(fd, len(w.rings)-1); err != nil {
			return err
		}
	}
	return nil
}

func (w *MapWatcher) watch(fd, index int) error {
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(index)}
	return unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, fd, &ev)
}

func (w *MapWatcher) run(mapped func(pid uint32)) {
	var evs [16]unix.EpollEvent
	for {
		n, err := unix.EpollWait(w.epoll, evs[:], -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		for _, ev := range evs[:max(n, 0)] {
			if ev.Fd < 0 {
				return
			}
			readMaps(w.rings[ev.Fd], mapped)
		}
	}
}

// Offsets in struct perf_event_mmap_page and in records
// (include/uapi/linux/perf_event.h).
const (
	perfDataHead = 1024
	perfDataTail = 1032
	perfHeader   = 8 // type u32, misc u16, size u16
)

// readMaps consumes the records of one CPU's buffer.
func readMaps(mem []byte, mapped func(pid uint32)) {
	data := mem[os.Getpagesize():]
	head := atomic.LoadUint64((*uint64)(unsafe.Pointer(&mem[perfDataHead])))
	tail := (*uint64)(unsafe.Pointer(&mem[perfDataTail]))
	pos := *tail
	at := func(off uint64) byte { return data[(pos+off)%uint64(len(data))] }
	for pos+perfHeader <= head {
		var b [16]byte
		for i := range b {
			b[i] = at(uint64(i))
		}
		size := uint64(binary.NativeEndian.Uint16(b[6:]))
		if size < perfHeader {
			pos = head
			break
		}
		if binary.NativeEndian.Uint32(b[:]) == unix.PERF_RECORD_MMAP2 && size >= 16 {
			mapped(binary.NativeEndian.Uint32(b[8:]))
		}
		pos += size
	}
	atomic.StoreUint64(tail, pos)
}

// Close ends the watch and waits for its goroutine. It is safe to call twice.
func (w *MapWatcher) Close() error {
	var errs []error
	w.once.Do(func() {
		if w.wake >= 0 {
			one := [8]byte{1}
			_, _ = unix.Write(w.wake, one[:])
		}
		w.done.Wait()
		for _, m := range w.rings {
			errs = append(errs, unix.Munmap(m))
		}
		for _, fd := range append(w.fds, w.epoll, w.wake) {
			if fd >= 0 {
				errs = append(errs, unix.Close(fd))
			}
		}
	})
	return errors.Join(errs...)
}
