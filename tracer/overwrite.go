package tracer

import (
	"encoding/binary"
	"errors"
	"os"
	"os/signal"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sbxtrace/sbxtrace/symbolizer"
	"github.com/sbxtrace/sbxtrace/trace"
)

// Probes that everyone has belong to a file, by offset, and stay when nobody
// executes it. Should it then be overwritten in place (`cp new program`, strip),
// as opposed to replaced by another file of that name, they would strike the new
// code where an instruction does not even begin. So who opens it for writing is
// kept waiting, by a lease, for the milliseconds that it takes to take them out.

// contents tells what was in a file at a time from what is there later.
type contents struct {
	size  int64
	mtime unix.Timespec
}

// contentsOf looks at a file; zero if that is not possible.
func contentsOf(path string) contents {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return contents{}
	}
	return contents{st.Size, st.Mtim}
}

// changed reports whether a file is something else by now. One that cannot be
// looked at is not: the process by which it is found may have ended.
func (c contents) changed(path string) bool {
	now := contentsOf(path)
	return now != (contents{}) && now != c
}

// forgetOverwritten takes out what is in files that were something else when
// they were looked at.
func (t *Tracer) forgetOverwritten(mods []mapped) error {
	var errs []error
	for i := range mods {
		known := t.modules[mods[i].id]
		if known == nil || known.contents == (contents{}) {
			continue
		}
		if path, err := mods[i].openPath(); err == nil && known.contents.changed(path) {
			errs = append(errs, t.forget(known))
		}
	}
	return errors.Join(errs...)
}

// forget takes all probes out of a module, which is then as one never seen.
func (t *Tracer) forget(m *module) error {
	ids := make(map[trace.FuncID]bool)
	for _, plan := range m.plans {
		for i := range plan.functions {
			ids[plan.functions[i].ID] = true
		}
	}
	t.loader.RemoveModule(ids)
	t.unwatched = slices.DeleteFunc(t.unwatched, func(w watched) bool { return ids[w.id] })
	if t.governor != nil {
		for id := range ids {
			t.governor.forget(id)
		}
	}
	var err error
	if m.bin != nil {
		err = m.bin.Close()
	}
	delete(t.modules, m.id)
	for _, p := range t.processes {
		delete(p.done, m.id)
	}
	return err
}

// overwrittenSince reports whether the program of p is something else than when
// it was looked at.
func (t *Tracer) overwrittenSince(p *process) bool {
	known := t.modules[p.main]
	return known != nil && known.contents.changed(symbolizer.ExePath(int(p.pid)))
}

// overwriteWatcher tells of files that are about to be overwritten.
type overwriteWatcher struct {
	changed func(fileID)
	signals chan os.Signal
	inotify *os.File // where there are no leases

	mu      sync.Mutex
	leases  map[fileID]*os.File
	watched map[int32]fileID // by inotify's watch descriptor
	closed  bool
	done    sync.WaitGroup
}

// watchOverwrites calls changed, from another goroutine, for each file that was
// added and that somebody wants to write to. He waits until changed returns,
// unless the file system has no leases.
func watchOverwrites(changed func(fileID)) (*overwriteWatcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	w := &overwriteWatcher{
		changed: changed, signals: make(chan os.Signal, 1), inotify: os.NewFile(uintptr(fd), "inotify"),
		leases: make(map[fileID]*os.File), watched: make(map[int32]fileID),
	}
	// The kernel's word for a lease that is to be given up (fcntl(2)).
	signal.Notify(w.signals, unix.SIGIO)
	w.done.Go(w.breakLeases)
	w.done.Go(w.readInotify)
	return w, nil
}

// add watches a file until somebody wants to write to it.
func (w *overwriteWatcher) add(path string, id fileID) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || w.leases[id] != nil {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK); err == nil {
		w.leases[id] = f
		return nil
	}
	// The file system has none, or the file is another user's, or open for
	// writing even now.
	f.Close()
	conn, err := w.inotify.SyscallConn()
	if err != nil {
		return err
	}
	var addErr error
	err = conn.Control(func(fd uintptr) {
		wd, err := unix.InotifyAddWatch(int(fd), path, unix.IN_MODIFY|unix.IN_ONESHOT)
		if addErr = err; err == nil {
			w.watched[int32(wd)] = id
		}
	})
	return errors.Join(err, addErr)
}

// breakLeases gives up the leases that are in somebody's way.
func (w *overwriteWatcher) breakLeases() {
	for range w.signals {
		for id, f := range w.broken() {
			w.changed(id)
			f.Close()
		}
	}
}

// broken are the leases that the kernel wants back.
func (w *overwriteWatcher) broken() map[fileID]*os.File {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make(map[fileID]*os.File)
	for id, f := range w.leases {
		if kind, err := unix.FcntlInt(f.Fd(), unix.F_GETLEASE, 0); err == nil && kind != unix.F_RDLCK {
			out[id] = f
			delete(w.leases, id)
		}
	}
	return out
}

func (w *overwriteWatcher) readInotify() {
	buf := make([]byte, 16*(unix.SizeofInotifyEvent+unix.NAME_MAX+1))
	for {
		n, err := w.inotify.Read(buf)
		if err != nil {
			return // closed
		}
		// struct inotify_event: wd, mask, cookie, len, name (inotify(7)).
		for at := 0; at+unix.SizeofInotifyEvent <= n; {
			wd, mask := int32(binary.NativeEndian.Uint32(buf[at:])), binary.NativeEndian.Uint32(buf[at+4:])
			at += unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(buf[at+12:]))
			w.mu.Lock()
			id, known := w.watched[wd]
			delete(w.watched, wd)
			w.mu.Unlock()
			if known && mask&unix.IN_MODIFY != 0 {
				w.changed(id)
			}
		}
	}
}

// close ends the watch; changed is not called any more.
func (w *overwriteWatcher) close() error {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	closed := w.closed
	w.closed = true
	var errs []error
	for _, f := range w.leases {
		errs = append(errs, f.Close())
	}
	clear(w.leases)
	w.mu.Unlock()
	if closed {
		return nil
	}
	// Only now: SIGIO kills who does not expect it.
	signal.Stop(w.signals)
	close(w.signals)
	errs = append(errs, w.inotify.Close())
	w.done.Wait()
	return errors.Join(errs...)
}

// overwritten is told by the watcher.
func (t *Tracer) overwritten(id fileID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.modules[id]
	if m == nil {
		return
	}
	if err := t.forget(m); err != nil {
		t.note("take probes out of %s, which is overwritten: %v", m.name, err)
	}
}

// watchOverwrite watches a file that everyone has probes in.
func (t *Tracer) watchOverwrite(m *module, path string) {
	if t.overwrites == nil {
		return // Start has said so
	}
	if err := t.overwrites.add(path, m.id); err != nil {
		t.note("%s must not be overwritten while it is traced: %v", m.name, err)
	}
}
