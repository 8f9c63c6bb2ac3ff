package main

import (
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sbxtrace/sbxtrace/loader"
	"github.com/sbxtrace/sbxtrace/tracer"
	"github.com/sbxtrace/sbxtrace/uprobes"
)

// levels are the values of --level.
var levels = map[string]loader.Level{
	"count":   loader.LevelCount,
	"latency": loader.LevelLatency,
	"calls":   loader.LevelCalls,
	"args":    loader.LevelArgs,
	"stacks":  loader.LevelStacks,
}

// returnMethods are the values of --returns.
var returnMethods = map[string]uprobes.ReturnMethod{
	"auto":      uprobes.ReturnAuto,
	"uretprobe": uprobes.ReturnUretprobe,
	"ret":       uprobes.ReturnRet,
	"none":      uprobes.ReturnNone,
}

// selectFlags pick functions.
type selectFlags struct {
	symbolFlags
	funcs, regex, modules, packages, files, excludes, usdt []string
}

func (f *selectFlags) add(cmd *cobra.Command) {
	f.symbolFlags.add(cmd)
	fs := cmd.Flags()
	fs.StringArrayVar(&f.funcs, "func", nil, "functions by `glob`, like the positional arguments")
	fs.StringArrayVar(&f.regex, "regex", nil, "functions by regular `expression`")
	fs.StringArrayVar(&f.modules, "module", nil, "only in modules (executable, libraries) whose name matches `glob`")
	fs.StringArrayVar(&f.packages, "package", nil, "only in Go packages or Rust crates that match `glob`")
	fs.StringArrayVar(&f.files, "file", nil, "only from source files that match `glob`")
	fs.StringArrayVar(&f.excludes, "exclude", nil, "leave out functions that match `glob`")
	fs.StringArrayVar(&f.usdt, "usdt", nil, "static probes by `provider:name` glob")
}

// check compiles the patterns, so that a broken one is a mistake in the command
// line before anything is done.
func (f *selectFlags) check(args []string) error {
	if _, err := f.selector(args).Compile(); err != nil {
		return usageError{err}
	}
	if _, err := uprobes.CompileUSDT(f.usdt); err != nil {
		return usageError{err}
	}
	return nil
}

func (f *selectFlags) selector(args []string) uprobes.Selector {
	return uprobes.Selector{
		Funcs: append(append([]string(nil), args...), f.funcs...), Regex: f.regex, Modules: f.modules,
		Packages: f.packages, Files: f.files, Excludes: f.excludes,
	}
}

// traceFlags are what attach and run have in common.
type traceFlags struct {
	selectFlags
	level       string
	returns     string
	minDuration time.Duration
	depth       uint32
	sample      string
	tids        []uint
	comm        string
	noFollow    bool
	follow      bool
	maxOverhead string
	buffer      string
	attach      string

	viewFlags
	args      []string // functions
	record    recordFlags
	readyFile string
	duration  time.Duration
}

func (f *traceFlags) add(cmd *cobra.Command) {
	f.addTracing(cmd)
	f.addView(cmd)
	cmd.Flags().StringVar(&f.record.path, "record", "", "record the session in `file` too, for sbxtrace replay")
}

// addTracing adds the flags that say what is traced, and for how long.
func (f *traceFlags) addTracing(cmd *cobra.Command) {
	f.selectFlags.add(cmd)
	fs := cmd.Flags()
	fs.StringVar(&f.level, "level", "calls", "how much is traced: count, latency, calls, args or stacks")
	fs.StringVar(&f.returns, "returns", "auto", "how ends of calls are seen: auto, uretprobe, ret or none")
	fs.DurationVar(&f.minDuration, "min-duration", 0, "leave out calls shorter than this `time`")
	fs.Uint32Var(&f.depth, "depth", 0, "leave out calls nested deeper than `N`")
	fs.StringVar(&f.sample, "sample", "", "trace one outermost call in N: `1/N`")
	fs.UintSliceVar(&f.tids, "tid", nil, "only these `threads`")
	fs.StringVar(&f.comm, "comm", "", "only threads of this `name`")
	fs.BoolVar(&f.follow, "follow", true, "trace child processes too")
	fs.BoolVar(&f.noFollow, "no-follow", false, "do not trace child processes")
	fs.StringVar(&f.maxOverhead, "max-overhead", "10%", "take out the hottest functions beyond this `share` of the target's CPU time; off for no limit")
	fs.StringVar(&f.buffer, "buffer", "32MiB", "`size` of the kernel's event buffer")
	fs.StringVar(&f.attach, "attach-with", "auto", "kernel interface: auto, uprobe-multi or perf-event")
	fs.StringVar(&f.readyFile, "ready-file", "", "create `file` when all probes are in")
	fs.DurationVar(&f.duration, "duration", 0, "stop after this `time`")
}

// options checks the flags and makes the tracer's options of them.
func (f *traceFlags) options(args []string) (tracer.Options, error) {
	f.args = args
	o := tracer.Options{
		Selector:    f.selector(args),
		USDT:        f.usdt,
		MinDuration: f.minDuration,
		MaxDepth:    f.depth,
		Comm:        f.comm,
		Follow:      f.follow && !f.noFollow,
	}
	var err error
	if o.Level, err = choice("--level", f.level, levels); err != nil {
		return o, err
	}
	if o.Returns, err = choice("--returns", f.returns, returnMethods); err != nil {
		return o, err
	}
	if o.Mode, err = choice("--attach-with", f.attach, map[string]loader.AttachMode{
		"auto": loader.AttachAuto, "uprobe-multi": loader.AttachMulti, "perf-event": loader.AttachPerf,
	}); err != nil {
		return o, err
	}
	if err = f.checkView(); err != nil {
		return o, err
	}
	if err = f.check(args); err != nil {
		return o, err
	}
	if f.minDuration < 0 || f.duration < 0 {
		return o, usagef("a time cannot be negative")
	}
	if o.Sample, err = parseSample(f.sample); err != nil {
		return o, err
	}
	if o.MaxOverhead, err = parseOverhead(f.maxOverhead); err != nil {
		return o, err
	}
	if o.RingBytes, err = parseBuffer(f.buffer); err != nil {
		return o, err
	}
	for _, tid := range f.tids {
		o.TIDs = append(o.TIDs, uint32(tid))
	}
	if len(f.comm) > 15 {
		return o, usagef("--comm %q: the kernel keeps 15 characters of a thread's name", f.comm)
	}
	return o, f.contradictions(&o)
}

// contradictions rejects combinations in which a flag would do nothing.
func (f *traceFlags) contradictions(o *tracer.Options) error {
	aggregated := o.Level < loader.LevelCalls
	switch {
	case o.Level == loader.LevelCount && (f.minDuration > 0 || len(f.hist) > 0):
		return usagef("--level count does not measure durations: use --level latency")
	case o.Level == loader.LevelCount && (o.MaxDepth > 0 || o.Sample > 1):
		return usagef("--level count does not know which call is inside which: --depth and --sample take --level latency or more")
	case o.Level == loader.LevelLatency && f.minDuration > 0:
		return usagef("--min-duration needs --level calls or more: --level latency measures every call")
	case aggregated && f.entries:
		return usagef("--entries needs --level calls or more")
	case o.Returns == uprobes.ReturnNone && (o.Level == loader.LevelLatency || f.minDuration > 0):
		return usagef("--returns none leaves no durations to measure")
	}
	return nil
}

// choice looks a flag's value up.
func choice[T any](flag, value string, of map[string]T) (T, error) {
	v, ok := of[value]
	if ok {
		return v, nil
	}
	names := make([]string, 0, len(of))
	for n := range of {
		names = append(names, n)
	}
	slices.Sort(names)
	return v, usagef("%s %q: it takes %s", flag, value, list(names))
}

// parseSample reads "1/N".
func parseSample(s string) (uint32, error) {
	if s == "" {
		return 0, nil
	}
	rest, ok := strings.CutPrefix(s, "1/")
	n, err := strconv.ParseUint(rest, 10, 32)
	if !ok || err != nil || n == 0 {
		return 0, usagef("--sample %q: it takes 1/N, such as 1/100", s)
	}
	return uint32(n), nil
}

// parseOverhead reads "10%", "2.5" or "off".
func parseOverhead(s string) (float64, error) {
	if s == "off" {
		return 0, nil
	}
	v, err := strconv.ParseFloat(strings.TrimSuffix(s, "%"), 64)
	if err != nil || v <= 0 || v > 100 {
		return 0, usagef("--max-overhead %q: it takes a percentage above 0, such as 10%%, or off", s)
	}
	return v, nil
}

// sizeUnits are the suffixes of a size in bytes.
var sizeUnits = []struct {
	suffix string
	factor uint64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"G", 1 << 30}, {"M", 1 << 20}, {"K", 1 << 10}, {"", 1}}

// parseSize reads a size: 64MiB, 512K, 4096.
func parseSize(s string) (uint64, error) {
	for _, u := range sizeUnits {
		digits, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSpace(digits), 10, 32)
		if err != nil {
			break
		}
		return n * u.factor, nil
	}
	return 0, fmt.Errorf("%q is no size: 64MiB, 512KiB, 4096", s)
}

// parseBuffer reads the ring buffer's size; the kernel takes powers of two.
func parseBuffer(s string) (int, error) {
	n, err := parseSize(s)
	if err != nil {
		return 0, usagef("--buffer: %w", err)
	}
	const least, most = 64 << 10, 1 << 30
	if n < least || n > most {
		return 0, usagef("--buffer %s: it takes 64KiB to 1GiB", s)
	}
	return 1 << bits.Len64(n-1), nil
}
