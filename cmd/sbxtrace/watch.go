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
	"time"

	"github.com/sbxtrace/sbxtrace/internal/term"
	"github.com/sbxtrace/sbxtrace/loader"
	"github.com/sbxtrace/sbxtrace/trace"
	"github.com/sbxtrace/sbxtrace/tracer"
	"github.com/sbxtrace/sbxtrace/uprobes"
	"github.com/sbxtrace/sbxtrace/view"
)

// watch is one tracing session from attaching to the summary: what attach and
// run do in the same way.
type watch struct {
	flags  *traceFlags
	level  loader.Level
	tracer *tracer.Tracer
	out    *output
	notes  *notes
	stats  *trace.Stats
	live   liveView // nil: only the summary
	json   *view.JSON
}

// liveView is a sink that prints.
type liveView interface {
	trace.Sink
	Err() error
	Close() error
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
	w := &watch{flags: f, level: level, tracer: t, out: out, notes: n, stats: new(trace.Stats)}
	frame := t.Frame
	switch {
	case f.format == "json":
		w.json = view.NewJSON(out, t.Functions(), view.JSONOptions{Entries: f.entries, Frame: frame})
		if level >= loader.LevelCalls && !f.summary {
			w.live = w.json
		}
	case level >= loader.LevelCalls && !f.summary:
		w.live = view.NewTree(out, t.Functions(), view.TreeOptions{Color: out.color, Width: out.width, Frame: frame})
	}
	return w, nil
}

// run traces until ctx is done, the targets end, or the output fails, and
// prints the summary.
func (w *watch) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sink := &fanOut{stats: w.stats, live: w.live, json: w.json, cancel: cancel}
	if w.live == nil || w.json != nil {
		sink.detached = w.noteDetached // a tree says it itself
	}
	orphans, err := w.tracer.Run(ctx, sink)
	if outErr := w.finish(orphans); !errors.Is(outErr, syscall.EPIPE) { // else the reader has seen enough
		err = errors.Join(err, outErr)
	}
	return err
}

// finish ends the live view and prints the summary, unless the output has
// failed before.
func (w *watch) finish(orphans uint64) error {
	if w.live != nil && w.json == nil {
		if err := w.live.Close(); err != nil {
			return err
		}
	}
	return w.summary(orphans)
}

// summary prints what every session ends with.
func (w *watch) summary(orphans uint64) error {
	rows, totals := w.stats.Rows(w.tracer.Functions()), w.stats.Totals()
	totals.Orphans = orphans
	if w.level < loader.LevelCalls {
		var err error
		if rows, err = w.tracer.Rows(); err != nil {
			return err
		}
		totals.Calls, totals.First, totals.Last = 0, w.tracer.Attached(), loader.Now()
		for i := range rows {
			if w.tracer.Functions().Func(rows[i].Func).Lang != trace.LangStatic {
				totals.Calls += rows[i].Calls
			}
		}
	}
	key, err := trace.ParseSortKey(w.flags.sort)
	if err != nil {
		return err
	}
	if w.json != nil {
		trace.SortRows(rows, w.tracer.Functions(), key)
		w.json.Summary(rows, &totals)
		return w.json.Close()
	}
	opt := view.SummaryOptions{Color: w.out.color, Width: w.out.width, Sort: key, Limit: w.limit()}
	if w.live != nil {
		if _, err := io.WriteString(w.out, "\n"); err != nil {
			return err
		}
	}
	if err := view.Summary(w.out, w.tracer.Functions(), rows, &totals, opt); err != nil {
		return err
	}
	return w.histograms(rows, opt)
}

// noteDetached names a function that was taken out, and its rate.
func (w *watch) noteDetached(e *trace.Event) {
	w.notes.printf("%s: %s, detached", w.tracer.Functions().Func(e.Func).Name, term.Rate(e.Count, uint64(time.Second)))
}

// limit keeps the table that follows a live view to a screen; a table that was
// asked for is whole.
func (w *watch) limit() int {
	if w.live != nil && w.out.width > 0 {
		return 40
	}
	return 0
}

// histograms prints those that --hist asks for.
func (w *watch) histograms(rows []trace.Row, opt view.SummaryOptions) error {
	for _, pattern := range w.flags.hist {
		match, err := uprobes.CompileName(pattern)
		if err != nil {
			return usageError{err}
		}
		found := false
		for i := range rows {
			if !match(w.tracer.Functions().Func(rows[i].Func).Name) {
				continue
			}
			found = true
			if _, err := io.WriteString(w.out, "\n"); err != nil {
				return err
			}
			if err := view.Histogram(w.out, w.tracer.Functions(), &rows[i], opt); err != nil {
				return err
			}
		}
		if !found {
			w.notes.printf("--hist %s: no traced function of that name was called", pattern)
		}
	}
	return nil
}

// fanOut hands calls to the statistics and the live view, and ends the session
// when nobody can read the view any more.
type fanOut struct {
	stats  *trace.Stats
	live   liveView
	json   *view.JSON // what is lost and detached goes there also without a live view; may be nil
	cancel context.CancelFunc
	// detached is told of functions that the governor took out; may be nil.
	detached func(e *trace.Event)
}

func (s *fanOut) Enter(l *trace.Lane, c *trace.Call) {
	s.stats.Enter(l, c)
	if s.live != nil {
		s.live.Enter(l, c)
	}
}

func (s *fanOut) Leave(l *trace.Lane, c *trace.Call) {
	s.stats.Leave(l, c)
	if s.live != nil {
		s.live.Leave(l, c)
	}
}

func (s *fanOut) Event(e *trace.Event) {
	if e.Kind == trace.KindDetached {
		s.stats.Detached(e.Func)
		if s.detached != nil {
			s.detached(e)
		}
	}
	s.stats.Event(e)
	switch {
	case s.live != nil:
		s.live.Event(e)
	case s.json != nil && (e.Kind == trace.KindLost || e.Kind == trace.KindDetached):
		s.json.Event(e) // what a summary alone must be read with
	}
}

func (s *fanOut) Tick(now uint64) {
	if s.live == nil {
		return
	}
	s.live.Tick(now)
	if s.live.Err() != nil {
		s.cancel()
	}
}

// attachedLine is what stderr and the ready file say when all probes are in.
func attachedLine(r tracer.Report, pids []uint32) string {
	where := fmt.Sprintf("%d processes", r.Processes)
	if len(pids) == 1 && r.Processes == 1 {
		where = fmt.Sprintf("pid %d", pids[0])
	}
	return fmt.Sprintf("attached: %s in %s of %s, %d ms",
		count(r.Functions, "function"), count(r.Modules, "module"), where, r.Took.Milliseconds())
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
