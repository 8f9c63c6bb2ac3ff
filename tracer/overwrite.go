package tracer

import (
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sbxtrace/sbxtrace/symbolizer"
	"github.com/sbxtrace/sbxtrace/trace"
)

// Probes that everyone has belong to a file, by offset, and stay when nobody
// executes it. Should it then be overwritten in place (`cp new program`, strip),
// as opposed to replaced by another file of that name, they would strike the new
// code where an instruction does not even begin. So they are taken out when the
// first byte is written, and again at an exec if that came too late.

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

// forgetOverwritten takes out what is in files that were something else when
// they were looked at.
func (t *Tracer) forgetOverwritten(mods []mapped) error {
	var errs []error
	for i := range mods {
		known := t.modules[mods[i].id]
		if known == nil || known.contents == (contents{}) {
			continue
		}
		if path, err := mods[i].openPath(); err == nil && contentsOf(path) != known.contents {
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
	return known != nil && contentsOf(symbolizer.ExePath(int(p.pid))) != known.contents
}

// overwriteWatcher tells of files that begin to be written to.
type overwriteWatcher struct {
	inotify *os.File
	mu      sync.Mutex
	files   map[int32]fileID // by watch descriptor
	done    sync.WaitGroup
}

// watchOverwrites calls changed, from another goroutine, for each file that was
// added and that is written to.
func watchOverwrites(changed func(fileID)) (*overwriteWatcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	w := &overwriteWatcher{inotify: os.NewFile(uintptr(fd), "inotify"), files: make(map[int32]fileID)}
	w.done.Go(func() { w.read(changed) })
	return w, nil
}

func (w *overwriteWatcher) read(changed func(fileID)) {
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
			id, known := w.files[wd]
			delete(w.files, wd)
			w.mu.Unlock()
			if known && mask&unix.IN_MODIFY != 0 {
				changed(id)
			}
		}
	}
}

// add watches a file until it is written to.
func (w *overwriteWatcher) add(path string, id fileID) error {
	// The descriptor's number is not the os.File's to give while it reads.
	conn, err := w.inotify.SyscallConn()
	if err != nil {
		return err
	}
	var addErr error
	err = conn.Control(func(fd uintptr) {
		w.mu.Lock()
		defer w.mu.Unlock()
		wd, err := unix.InotifyAddWatch(int(fd), path, unix.IN_MODIFY|unix.IN_ONESHOT)
		if addErr = err; err == nil {
			w.files[int32(wd)] = id
		}
	})
	return errors.Join(err, addErr)
}

func (w *overwriteWatcher) close() error {
	if w == nil {
		return nil
	}
	err := w.inotify.Close()
	w.done.Wait()
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
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
