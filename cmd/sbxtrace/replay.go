package main

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/sbxtrace/sbxtrace/recording"
	"github.com/sbxtrace/sbxtrace/replay"
	"github.com/sbxtrace/sbxtrace/symbolizer"
	"github.com/sbxtrace/sbxtrace/trace"
	"github.com/sbxtrace/sbxtrace/uprobes"
)

// replayFlags say what of a recording is shown.
type replayFlags struct {
	viewFlags
	from, to string
	funcs    []string
	threads  []string
	pids     []uint
	speed    string
	at       string
	until    string
	explain  string
	tree     bool
}

func replayCommand() *cobra.Command {
	var f replayFlags
	cmd := &cobra.Command{
		Use:   "replay FILE",
		Short: "Show a recording: its calls, or the state at any moment",
		Long: `Replay prints of a recording what attach would have printed, or did print, when
it was made; of a part of its time, of some functions or threads, or the stacks of
all threads at one moment. It replays events, not the execution of the program.

Times are given from the beginning (1.5s), before the end (-2s), by the clock
(15:04:05.123) or in ns as JSON lines have them.`,
		Example: `  sbxtrace replay server.sbx
  sbxtrace replay server.sbx --summary
  sbxtrace replay server.sbx --from 1.5s --to 1.6s --func 'db_*'
  sbxtrace replay server.sbx --at -10ms
  sbxtrace replay server.sbx --thread worker --speed 1x`,
		Args: oneFile,
		RunE: func(cmd *cobra.Command, args []string) error { return replayFile(cmd, &f, args[0]) },
	}
	f.addView(cmd)
	f.addParts(cmd)
	fs := cmd.Flags()
	fs.StringVar(&f.speed, "speed", "max", "how fast: 1x, 10x, 0.1x or max")
	fs.StringVar(&f.at, "at", "", "print what every thread is in at this `time`")
	fs.StringVar(&f.until, "until", "", "find the next moment at which this `condition` is met, such as 'call(FUNC) > 10ms'")
	fs.StringVar(&f.explain, "explain", "", "print what led to this `time`: the calls that are open, and those before them")
	fs.BoolVar(&f.tree, "tree", false, "print the calls as a tree, also on a terminal")
	return cmd
}

// addParts adds the flags that pick a part of a recording.
func (f *replayFlags) addParts(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&f.from, "from", "", "begin at this `time`")
	fs.StringVar(&f.to, "to", "", "end at this `time`")
	fs.StringArrayVar(&f.funcs, "func", nil, "only calls of functions that match `glob`")
	fs.StringArrayVar(&f.threads, "thread", nil, "only `threads` of this id or name, or a goroutine: g17")
	fs.UintSliceVar(&f.pids, "pid", nil, "only these `processes`")
}

// oneFile is the Args of commands that take one recording.
func oneFile(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usagef("it takes one recording, not %d", len(args))
	}
	return nil
}

// check checks what can be without the recording.
func (f *replayFlags) check() (speed float64, err error) {
	if err := f.checkView(); err != nil {
		return 0, err
	}
	if f.at != "" && (f.from != "" || f.to != "" || f.summary || f.entries || len(f.hist) > 0 || f.speed != "max") {
		return 0, usagef("--at is one moment: it goes with --func, --thread, --pid, --format and -o")
	}
	if err := f.checkMoments(); err != nil {
		return 0, err
	}
	if f.speed == "max" {
		return 0, nil
	}
	speed, err = strconv.ParseFloat(strings.TrimSuffix(f.speed, "x"), 64)
	if err != nil || !(speed > 0 && speed < 1e9) {
		return 0, usagef("--speed %q: it takes 1x, 10x, 0.1x or max", f.speed)
	}
	return speed, nil
}

// checkMoments checks the flags that print one moment instead of calls.
func (f *replayFlags) checkMoments() error {
	moments := 0
	for _, s := range []string{f.at, f.until, f.explain} {
		if s != "" {
			moments++
		}
	}
	calls := f.summary || f.entries || len(f.hist) > 0 || f.speed != "max"
	switch {
	case moments > 1:
		return usagef("--at, --until and --explain exclude each other")
	case f.until != "" && calls:
		return usagef("--until finds one moment: it goes with --from, --to, --func, --thread, --pid, --format and -o")
	case f.explain != "" && (calls || f.from != "" || f.to != "" || f.format == "json"):
		return usagef("--explain is one moment, for people: it goes with --func, --thread, --pid and -o")
	case f.tree && (f.summary || f.format == "json" || moments > 0):
		return usagef("--tree is what --summary, --format json, --at, --until and --explain replace")
	}
	return nil
}

// filter makes the replay's filter of the flags.
func (f *replayFlags) filter() (replay.Filter, error) {
	var out replay.Filter
	if len(f.funcs) > 0 {
		m, err := uprobes.Selector{Funcs: f.funcs}.Compile()
		if err != nil {
			return out, usageError{err}
		}
		out.Func = func(fn *trace.Func) bool { return matchFunc(m, fn) }
	}
	if len(f.threads)+len(f.pids) == 0 {
		return out, nil
	}
	var names []func(string) bool
	for _, t := range f.threads {
		match, err := uprobes.CompileName(t)
		if err != nil {
			return out, usagef("--thread: %w", err)
		}
		names = append(names, match)
	}
	out.Thread = func(t replay.Thread) bool { return f.pid(t.PID) && f.thread(&t, names) }
	return out, nil
}

func (f *replayFlags) pid(pid uint32) bool {
	for _, p := range f.pids {
		if uint32(p) == pid {
			return true
		}
	}
	return len(f.pids) == 0
}

func (f *replayFlags) thread(t *replay.Thread, names []func(string) bool) bool {
	for i, s := range f.threads {
		if t.GoID != 0 && s == "g"+strconv.FormatUint(t.GoID, 10) || s == strconv.FormatUint(uint64(t.TID), 10) && t.GoID == 0 ||
			t.Comm != "" && names[i](t.Comm) {
			return true
		}
	}
	return len(f.threads) == 0
}

func replayFile(cmd *cobra.Command, f *replayFlags, file string) error {
	speed, err := f.check()
	if err != nil {
		return err
	}
	filter, err := f.filter()
	if err != nil {
		return err
	}
	rec, err := recording.Open(file)
	if err != nil {
		return err
	}
	defer rec.Close()
	n := &notes{w: cmd.ErrOrStderr()}
	noteDamage(n, rec)
	out, err := openOutput(f.output, cmd.OutOrStdout(), f.color)
	if err != nil {
		return err
	}
	defer out.Close()
	p := replay.NewPlayer(rec, nil)
	p.SetFilter(filter)
	switch {
	case f.at != "":
		err = printMoment(out, f, rec, p)
	case f.until != "":
		err = f.findNext(out, rec, p)
	case f.explain != "":
		err = f.explainMoment(out, rec, p)
	default:
		err = f.play(rec, p, out, n, speed)
	}
	if errors.Is(err, syscall.EPIPE) { // the reader has seen enough
		err = nil
	}
	return errors.Join(err, out.Close())
}

// play prints a part of the recording as attach would have.
func (f *replayFlags) play(rec *recording.File, p *replay.Player, out *output, n *notes, speed float64) error {
	opt, err := f.span(rec)
	if err != nil {
		return err
	}
	sums, err := kernelSums(rec)
	if err != nil {
		return err
	}
	if sums != nil {
		p.Names().AddFunctions(sums.Functions)
		if opt.From != 0 || opt.To != 0 {
			return fmt.Errorf("--from and --to: at level %s only sums over the whole time are recorded", rec.Session.Level)
		}
	}
	ctx, stop := untilSignal()
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	v := newViewer(&f.viewFlags, p.Names(), p.Names().Frame, out, n, sums == nil)
	p.SetSink(v.sink(cancel))
	opt.Pace = pace(ctx, rec, opt.From, speed)
	if err := p.Run(opt); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return v.finish(p.Orphans(), sums)
}

// kernelSums are the sums of a recording that has no calls: of levels count and
// latency; nil of others.
func kernelSums(rec *recording.File) (*recording.Rows, error) {
	for i := range rec.Blocks {
		if rec.Blocks[i].Header.Calls > 0 {
			return nil, nil
		}
	}
	return rec.Sums()
}

// span is the time to play.
func (f *replayFlags) span(rec *recording.File) (replay.Options, error) {
	var o replay.Options
	for _, t := range []struct {
		flag, value string
		to          *uint64
	}{{"--from", f.from, &o.From}, {"--to", f.to, &o.To}} {
		if t.value == "" {
			continue
		}
		ns, err := replay.ParseTime(rec, t.value)
		if err != nil {
			return o, usagef("%s: %w", t.flag, err)
		}
		*t.to = ns
	}
	if o.To != 0 && o.To < o.From {
		return o, usagef("--to %s is before --from %s", f.to, f.from)
	}
	return o, nil
}

// pace waits between items as long as it took when they were recorded, and ends
// with ctx.
func pace(ctx context.Context, rec *recording.File, from uint64, speed float64) func(uint64) error {
	if speed == 0 {
		return func(uint64) error { return ctx.Err() }
	}
	if from == 0 {
		from, _ = rec.Span()
	}
	begin := time.Now()
	return func(t uint64) error {
		if t > from {
			due := begin.Add(time.Duration(float64(t-from) / speed))
			if wait := time.Until(due); wait > 0 {
				select {
				case <-ctx.Done():
				case <-time.After(wait):
				}
			}
		}
		return ctx.Err()
	}
}

// noteDamage tells what is wrong with a recording; what there is of it is shown.
func noteDamage(n *notes, f *recording.File) {
	d := &f.Damage
	if d.Truncated {
		n.printf("the recording breaks off in the middle of a block: it was not ended in order")
	}
	if d.Missing > 0 {
		n.printf("%s of the recording %s missing", count(int(d.Missing), "block"), isOrAre(d.Missing))
	}
	if d.Skipped > 0 {
		n.printf("%s of the recording are damaged and left out", count(int(d.Skipped), "byte"))
	}
	if d.Foreign > 0 {
		n.printf("%s in the file %s to another recording and %s left out", count(d.Foreign, "block"),
			map[bool]string{true: "belongs", false: "belong"}[d.Foreign == 1], isOrAre(uint64(d.Foreign)))
	}
}

func isOrAre(n uint64) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

// matchFunc matches a recorded function by the selectors of live ones.
func matchFunc(m *uprobes.Matcher, fn *trace.Func) bool {
	return m.Match(&symbolizer.Function{Name: fn.Name}, fn.Path, func() string { return fn.File })
}

// moduleName names the file of a function, also of the main executable.
func moduleName(fn *trace.Func) string {
	if fn.Module == "" && fn.Path != "" {
		return path.Base(fn.Path)
	}
	return fn.Module
}
