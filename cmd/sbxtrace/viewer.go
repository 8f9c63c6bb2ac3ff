package main

import (
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/sbxtrace/sbxtrace/internal/term"
	"github.com/sbxtrace/sbxtrace/recording"
	"github.com/sbxtrace/sbxtrace/trace"
	"github.com/sbxtrace/sbxtrace/trigger"
	"github.com/sbxtrace/sbxtrace/uprobes"
	"github.com/sbxtrace/sbxtrace/view"
)

// viewFlags say what is printed of calls, live ones or replayed ones.
type viewFlags struct {
	summary bool
	hist    []string
	sort    string
	format  string
	entries bool
	output  string
	color   string
	silent  bool // nothing at all
}

func (f *viewFlags) addView(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.BoolVar(&f.summary, "summary", false, "only the summary at the end, not each call")
	fs.StringArrayVar(&f.hist, "hist", nil, "print a histogram of the durations of functions that match `glob`")
	fs.StringVar(&f.sort, "sort", "total", "order of the summary: total, self, calls, min, p50, p95, p99, max or name")
	fs.StringVar(&f.format, "format", "text", "text or json (one object per line)")
	fs.BoolVar(&f.entries, "entries", false, "with --format json: an object for each entry too")
	fs.StringVarP(&f.output, "output", "o", "", "write to `file` instead")
	fs.StringVar(&f.color, "color", "auto", "auto, always or never")
}

// checkView checks the flags.
func (f *viewFlags) checkView() error {
	if _, err := choice("--format", f.format, map[string]bool{"text": true, "json": true}); err != nil {
		return err
	}
	if _, err := choice("--color", f.color, map[string]bool{"auto": true, "always": true, "never": true}); err != nil {
		return err
	}
	if _, err := trace.ParseSortKey(f.sort); err != nil {
		return usagef("--sort: %w", err)
	}
	for _, pattern := range f.hist {
		if _, err := uprobes.CompileName(pattern); err != nil {
			return usagef("--hist: %w", err)
		}
	}
	if f.entries && f.format != "json" {
		return usagef("--entries needs --format json")
	}
	return nil
}

// viewer prints calls as they come, and the summary: the same for live and for
// recorded ones.
type viewer struct {
	view  *viewFlags
	fns   trace.Functions
	out   *output
	notes *notes
	stats *trace.Stats
	live  liveView // nil: only the summary
	json  *view.JSON
}

// liveView is a sink that prints.
type liveView interface {
	trace.Sink
	Err() error
	Close() error
}

// newViewer makes the views. Without calls there are only sums to print.
func newViewer(f *viewFlags, fns trace.Functions, frame view.Frame, out *output, n *notes, calls bool) *viewer {
	v := &viewer{view: f, fns: fns, out: out, notes: n, stats: new(trace.Stats)}
	switch {
	case f.silent:
	case f.format == "json":
		v.json = view.NewJSON(out, fns, view.JSONOptions{Entries: f.entries, Frame: frame})
		if calls && !f.summary {
			v.live = v.json
		}
	case calls && !f.summary:
		v.live = view.NewTree(out, fns, view.TreeOptions{Color: out.color, Width: out.width, Frame: frame})
	}
	return v
}

// sink is what the calls go to; cancel ends the session.
func (v *viewer) sink(cancel context.CancelFunc) *fanOut {
	s := &fanOut{stats: v.stats, live: v.live, json: v.json, cancel: cancel}
	if v.live == nil || v.json != nil {
		s.detached = v.noteDetached // a tree says it itself
	}
	return s
}

// finish ends the live view and prints the summary, unless the output has
// failed before.
func (v *viewer) finish(orphans uint64, sums *recording.Rows) error {
	if v.live != nil && v.json == nil {
		if err := v.live.Close(); err != nil {
			return err
		}
	}
	if v.view.silent {
		return nil
	}
	return v.summary(orphans, sums)
}

// summary prints what every session ends with: of sums, or of the calls seen.
func (v *viewer) summary(orphans uint64, sums *recording.Rows) error {
	counted, totals := v.stats.Rows(v.fns), v.stats.Totals()
	totals.Orphans = orphans
	rows := counted
	if sums != nil {
		rows = sums.Rows
	}
	rows = pythonRows(rows, counted, v.fns)
	if sums != nil {
		totals.Calls, totals.First, totals.Last = 0, sums.First, sums.Last
		for i := range rows {
			if v.fns.Func(rows[i].Func).Lang != trace.LangStatic {
				totals.Calls += rows[i].Calls
			}
		}
	}
	key, err := trace.ParseSortKey(v.view.sort)
	if err != nil {
		return err
	}
	if v.json != nil {
		trace.SortRows(rows, v.fns, key)
		v.json.Summary(rows, &totals)
		return v.json.Close()
	}
	opt := view.SummaryOptions{Color: v.out.color, Width: v.out.width, Sort: key, Limit: v.limit()}
	if v.live != nil {
		if _, err := io.WriteString(v.out, "\n"); err != nil {
			return err
		}
	}
	if err := view.Summary(v.out, v.fns, rows, &totals, opt); err != nil {
		return err
	}
	return v.histograms(rows, opt)
}

// noteDetached names a function that was taken out, and its rate.
func (v *viewer) noteDetached(e *trace.Event) {
	v.notes.printf("%s: %s, detached", v.fns.Func(e.Func).Name, term.Rate(e.Count, uint64(time.Second)))
}

// limit keeps the table that follows a live view to a screen; a table that was
// asked for is whole.
func (v *viewer) limit() int {
	if v.live != nil && v.out.width > 0 {
		return 40
	}
	return 0
}

// histograms prints those that --hist asks for.
func (v *viewer) histograms(rows []trace.Row, opt view.SummaryOptions) error {
	for _, pattern := range v.view.hist {
		match, err := uprobes.CompileName(pattern)
		if err != nil {
			return usageError{err}
		}
		found := false
		for i := range rows {
			if !match(v.fns.Func(rows[i].Func).Name) {
				continue
			}
			found = true
			if _, err := io.WriteString(v.out, "\n"); err != nil {
				return err
			}
			if err := view.Histogram(v.out, v.fns, &rows[i], opt); err != nil {
				return err
			}
		}
		if !found {
			v.notes.printf("--hist %s: no traced function of that name was called", pattern)
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
	// triggers wait for something to happen; nil: nothing.
	triggers *trigger.Watch
	// detached is told of functions that the governor took out; may be nil.
	detached func(e *trace.Event)
}

func (s *fanOut) Enter(l *trace.Lane, c *trace.Call) {
	s.stats.Enter(l, c)
	if s.triggers != nil {
		s.triggers.Enter(l, c)
	}
	if s.live != nil {
		s.live.Enter(l, c)
	}
}

func (s *fanOut) Leave(l *trace.Lane, c *trace.Call) {
	s.stats.Leave(l, c)
	if s.triggers != nil {
		s.triggers.Leave(l, c)
	}
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
	if s.triggers != nil {
		s.triggers.Event(e)
	}
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
