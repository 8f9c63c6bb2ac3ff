package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sbxtrace/sbxtrace/internal/term"
	"github.com/sbxtrace/sbxtrace/loader"
	"github.com/sbxtrace/sbxtrace/recording"
	"github.com/sbxtrace/sbxtrace/symbolizer"
	"github.com/sbxtrace/sbxtrace/trace"
	"github.com/sbxtrace/sbxtrace/tracer"
)

// recorder records a session into a file: it is the session's trace.Tap.
type recorder struct {
	*recording.Writer
	path   string
	frames *frameNames
	failed func(error) // told once when recording has to end before the session
	flight *flight     // nil: what is recorded goes to a file at once
	asked  atomic.Bool // SIGUSR2 came
	began  time.Time
	broken bool
}

// newRecording creates a recording that replaces what is at path once begin is
// called. It belongs to whoever called sudo, and nobody else may read it.
func newRecording(path string) (*newFile, error) {
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("create recording: %s is no regular file", path)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return nil, fmt.Errorf("create recording: %w", err)
	}
	n := &newFile{f, path}
	if err := giveToCaller(f); err != nil {
		n.discard()
		return nil, err
	}
	return n, nil
}

// newFile is a file that has not got its name yet.
type newFile struct {
	*os.File
	path string
}

// begin gives the file its name.
func (n *newFile) begin() error {
	if err := os.Rename(n.Name(), n.path); err != nil {
		return fmt.Errorf("create recording: %w", err)
	}
	return nil
}

// discard removes a file that was not begun.
func (n *newFile) discard() {
	n.Close()
	os.Remove(n.Name())
}

// session describes what is recorded.
func (f *traceFlags) session(t *tracer.Tracer, args []string) recording.Session {
	s := recording.Session{
		Tool: "sbxtrace " + versionString(), Command: os.Args, OS: runtime.GOOS, Arch: runtime.GOARCH, CPUs: runtime.NumCPU(),
		Monotonic: loader.Now(), Unix: time.Now().UnixNano(), Level: f.level,
	}
	s.Host, _ = os.Hostname()
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		s.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	if b, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		s.Boot = strings.TrimSpace(string(b))
	}
	sel := f.selector(args)
	s.Selectors = &recording.Selectors{
		Functions: sel.Funcs, Regex: sel.Regex, Modules: sel.Modules, Packages: sel.Packages, Files: sel.Files,
		Excludes: sel.Excludes, USDT: f.usdt,
	}
	filters := recording.Filters{MinDuration: f.minDuration, MaxDepth: f.depth, Comm: f.comm}
	filters.Sample, _ = parseSample(f.sample)
	for _, tid := range f.tids {
		filters.TIDs = append(filters.TIDs, uint32(tid))
	}
	s.Filters = &filters
	for _, pid := range t.Processes() {
		s.Targets = append(s.Targets, describeProcess(pid))
	}
	for _, m := range t.Modules() {
		s.Modules = append(s.Modules, recording.Module(m))
	}
	return s
}

// describeProcess reads what /proc says of a process.
func describeProcess(pid uint32) recording.Process {
	p := recording.Process{PID: pid}
	p.Exe, _ = symbolizer.Exe(int(pid))
	p.Args, _ = symbolizer.Cmdline(int(pid))
	if parent, err := symbolizer.Parent(int(pid)); err == nil {
		p.Parent = uint32(parent)
	}
	return p
}

// wallOffset is Unix time less CLOCK_MONOTONIC, ns.
func wallOffset() int64 { return time.Now().UnixNano() - int64(loader.Now()) }

// record begins to record what t traces in store.
func (f *traceFlags) newRecorder(t *tracer.Tracer, store recording.Store, path string, s recording.Session) (*recorder, error) {
	r := &recorder{path: path, frames: newFrameNames(t), began: time.Now()}
	opt := recording.Options{
		Session: s, Functions: t.Functions(), Process: describeProcess, Frame: r.frames.frame, Wall: wallOffset,
	}
	if s.Ring != nil && s.Ring.Bytes > 0 {
		opt.BlockBytes = int(min(s.Ring.Bytes/8, 4<<20))
	}
	var err error
	r.Writer, err = recording.NewWriter(store, opt)
	return r, err
}

// Event implements trace.Tap.
func (r *recorder) Event(e *trace.Event) {
	r.Writer.Event(e)
	if e.Kind == trace.KindExec {
		r.frames.forget(e.PID)
	}
}

// Tick implements trace.Tap.
func (r *recorder) Tick(now uint64) {
	r.Writer.Tick(now)
	if err := r.Err(); err != nil && !r.broken {
		r.broken = true
		r.failed(err)
	}
	if r.asked.CompareAndSwap(true, false) {
		r.trigger("SIGUSR2", now)
	}
	if r.flight != nil {
		r.flight.tick(now)
	}
}

// trigger has what is kept saved; where everything is, it is a mark.
func (r *recorder) trigger(what string, at uint64) {
	if r.flight != nil {
		r.flight.trigger(what, at)
		return
	}
	r.Mark(recording.Mark{Time: at, Kind: recording.MarkTrigger, Text: what})
}

// signals listens for SIGUSR2 until ctx is done.
func (r *recorder) signals(ctx context.Context) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGUSR2)
	go func() {
		defer signal.Stop(c)
		for {
			select {
			case <-ctx.Done():
				return
			case <-c:
				r.asked.Store(true)
			}
		}
	}()
}

// summary says what was recorded.
func (r *recorder) summary() string {
	calls, size := r.Calls(), r.Written()
	line := fmt.Sprintf("recorded %s", term.Plural(calls, "call"))
	if other := r.Events() - 2*calls; calls == 0 && other > 0 {
		line = fmt.Sprintf("recorded %s", term.Plural(r.Events(), "event"))
	}
	line += fmt.Sprintf(" of %s in %s: %s", term.Duration(uint64(time.Since(r.began))), r.path, term.Bytes(size))
	if calls >= 1000 {
		line += fmt.Sprintf(", %.1f bytes per call", float64(size)/float64(calls))
	}
	return line
}

// frameNames names addresses of stacks for the view and the recording alike:
// whoever asks first decides, so that a replay prints what was printed live.
type frameNames struct {
	t     *tracer.Tracer
	known map[recording.Place]recording.Frame
}

// maxFrameNames bounds how many names are kept.
const maxFrameNames = 1 << 20

func newFrameNames(t *tracer.Tracer) *frameNames {
	return &frameNames{t, make(map[recording.Place]recording.Frame)}
}

func (n *frameNames) frame(pid uint32, addr uint64) recording.Frame {
	at := recording.Place{PID: pid, Addr: addr}
	f, ok := n.known[at]
	if !ok {
		if len(n.known) >= maxFrameNames {
			clear(n.known)
		}
		f = n.describe(pid, addr)
		n.known[at] = f
	}
	return f
}

func (n *frameNames) describe(pid uint32, addr uint64) recording.Frame {
	f := recording.Frame{Text: string(n.t.Frame(nil, pid, addr))}
	loc, ok := n.t.Locate(pid, addr)
	if !ok {
		return f
	}
	f.Module, f.Offset = loc.Module, loc.File
	if loc.Function != nil {
		f.Func = loc.Function.Name
	}
	if loc.Binary != nil {
		f.BuildID = loc.Binary.BuildID
		f.File, f.Line = loc.Binary.Line(loc.Addr)
	}
	return f
}

// append is a view.Frame.
func (n *frameNames) append(dst []byte, pid uint32, addr uint64) []byte {
	return append(dst, n.frame(pid, addr).Text...)
}

// forget drops the names of a process that executes another program now.
func (n *frameNames) forget(pid uint32) {
	for at := range n.known {
		if at.PID == pid {
			delete(n.known, at)
		}
	}
}

// end writes the rest of the recording and says what is in it.
func (r *recorder) end(n *notes) error {
	if err := r.Close(); err != nil {
		if r.Events() > 0 && !errors.Is(err, os.ErrNotExist) {
			n.printf("what was recorded before is in %s", r.path)
		}
		return err
	}
	n.printf("%s", r.summary())
	return nil
}
