package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/sbxtrace/sbxtrace/loader"
	"github.com/sbxtrace/sbxtrace/recording"
	"github.com/sbxtrace/sbxtrace/tracer"
	"github.com/sbxtrace/sbxtrace/trigger"
)

// watch is one tracing session from attaching to the summary: what attach and
// run do in the same way.
type watch struct {
	*viewer
	flags  *traceFlags
	level  loader.Level
	tracer *tracer.Tracer

	file *newFile  // to record in; nil: nothing is recorded
	rec  *recorder // once it has begun

	flight   *flight        // nil: what is recorded goes to a file at once
	triggers *trigger.Watch // of flight
}

// notes writes lines for the user to stderr, from any goroutine.
type notes struct {
	mu   sync.Mutex
	w    io.Writer
	line string // shown at the moment, to be overwritten
}

func (n *notes) printf(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	fmt.Fprintf(n.w, "%ssbxtrace: "+format+"\n%s", append(append([]any{n.erase()}, args...), n.line)...)
}

// status shows a line on a terminal that the next one replaces; an empty one
// takes it away.
func (n *notes) status(line string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	erase := n.erase()
	n.line = line
	fmt.Fprint(n.w, erase+line)
}

// erase is what takes the present status line away.
func (n *notes) erase() string {
	if n.line == "" {
		return ""
	}
	return "\r\x1b[K"
}

// newWatch makes the views; nothing is attached yet.
func newWatch(f *traceFlags, t *tracer.Tracer, level loader.Level, out *output, n *notes) (*watch, error) {
	w := &watch{flags: f, level: level, tracer: t}
	if err := w.prepareRecording(); err != nil {
		return nil, err
	}
	w.viewer = newViewer(&f.viewFlags, t.Functions(), w.frame, out, n, level >= loader.LevelCalls)
	return w, nil
}

// frame names addresses of stacks: it is a view.Frame.
func (w *watch) frame(dst []byte, pid uint32, addr uint64) []byte {
	if w.rec != nil {
		return w.rec.frames.append(dst, pid, addr)
	}
	return w.tracer.Frame(dst, pid, addr)
}

// run traces until ctx is done, the targets end, or the output fails, and
// prints the summary.
func (w *watch) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if w.rec != nil {
		w.rec.failed = func(err error) { w.recordingFailed(err, cancel) }
		w.rec.signals(ctx)
		w.tracer.Tap(w.rec)
	}
	sink := w.sink(cancel)
	if w.flight != nil {
		w.flight.stop = cancel
		sink.triggers = w.triggers
	}
	orphans, err := w.tracer.Run(ctx, sink)
	sums, sumErr := w.sums()
	err = errors.Join(err, sumErr)
	if sumErr == nil {
		if outErr := w.finish(orphans, sums); !errors.Is(outErr, syscall.EPIPE) { // else the reader has seen enough
			err = errors.Join(err, outErr)
		}
	}
	switch {
	case w.flight != nil:
		err = errors.Join(err, w.flight.end())
	case w.rec != nil:
		err = errors.Join(err, w.rec.end(w.notes))
	}
	return err
}

// sums are what levels count and latency have counted in the kernel; nil at
// other levels.
func (w *watch) sums() (*recording.Rows, error) {
	if w.level >= loader.LevelCalls {
		return nil, nil
	}
	rows, err := w.tracer.Rows()
	if err != nil {
		return nil, err
	}
	s := &recording.Rows{Rows: rows, First: w.tracer.Attached(), Last: loader.Now()}
	if w.rec != nil {
		w.rec.Rows(s.Rows, s.First, s.Last)
	}
	return s, nil
}

// attachedLine is what stderr and the ready file say when all probes are in.
func attachedLine(r tracer.Report, pids []uint32) string {
	where := fmt.Sprintf("%d processes", r.Processes)
	if r.Processes == 1 {
		where = "1 process"
	}
	if len(pids) == 1 && r.Processes == 1 {
		where = fmt.Sprintf("pid %d", pids[0])
	}
	what := count(r.Functions, "function")
	switch {
	case r.Static > 0 && r.Functions > 0:
		what += " and " + count(r.Static, "static probe")
	case r.Static > 0:
		what = count(r.Static, "static probe")
	}
	return fmt.Sprintf("attached: %s in %s of %s, %d ms", what, count(r.Modules, "module"), where, r.Took.Milliseconds())
}

// count is "1 function" or "2 functions".
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// untilSignal is a context that ends with SIGINT, SIGTERM or SIGHUP. A second
// one ends the process, should the reader of its output block it: the kernel
// takes the probes out then.
func untilSignal() (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// unlessInterrupted ends sbxtrace at once if ctx ends before attached is called:
// thousands of probes are not put in first to be taken out again. The kernel
// takes out those that are in. It does no harm to call attached twice.
func unlessInterrupted(ctx context.Context, n *notes) (attached func()) {
	done := make(chan struct{})
	go func() {
		select {
		case <-done:
		case <-ctx.Done():
			n.printf("interrupted before all probes were in")
			os.Exit(exitFailure)
		}
	}()
	return sync.OnceFunc(func() { close(done) })
}

// skippedNote tells of functions that were selected and cannot be probed. Parts
// that compilers split off functions are none.
func skippedNote(r tracer.Report) string {
	const most = 3
	var names []string
	n := 0
	for i := range r.Skipped {
		if r.Skipped[i].Function.Fragment {
			continue
		}
		if n++; n <= most {
			names = append(names, r.Skipped[i].Function.Name)
		}
	}
	if n == 0 {
		return ""
	}
	more := ""
	if n > most {
		more = fmt.Sprintf(" and %d more", n-most)
	}
	return fmt.Sprintf("%s cannot be probed: %s%s (`sbxtrace functions --verbose` says why)",
		count(n, "function"), strings.Join(names, ", "), more)
}
