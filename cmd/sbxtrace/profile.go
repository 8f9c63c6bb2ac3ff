package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sbxtrace/sbxtrace/exporter"
	"github.com/sbxtrace/sbxtrace/internal/term"
	"github.com/sbxtrace/sbxtrace/loader"
	"github.com/sbxtrace/sbxtrace/profiler"
	"github.com/sbxtrace/sbxtrace/symbolizer"
	"github.com/sbxtrace/sbxtrace/trace"
	"github.com/sbxtrace/sbxtrace/tracer"
	"github.com/sbxtrace/sbxtrace/uprobes"
)

// sampleEvents are the values of --event.
var sampleEvents = map[string]loader.SampleEvent{
	"cpu": loader.SampleCPU, "off-cpu": loader.SampleOffCPU, "lock": loader.SampleLock, "wall": loader.SampleWall,
	"page-fault": loader.SampleFaults, "alloc": loader.SampleAllocs,
}

// sampled returns what --event says: an event, or functions whose calls are.
func (f *samplingFlags) sampled() (loader.SampleEvent, uprobes.Selector) {
	if event, ok := sampleEvents[f.event]; ok {
		return event, uprobes.Selector{}
	}
	return loader.SampleCalls, uprobes.Selector{Funcs: []string{f.event}}
}

// samplingFlags are the flags of profile.
type samplingFlags struct {
	targetFlags
	symbolFlags
	all       bool
	event     string
	hz        int
	hzGiven   bool
	period    uint64
	wakers    bool
	duration  time.Duration
	noKernel  bool
	noFollow  bool
	user      string
	output    string
	format    string
	color     string
	limit     int
	byThread  bool
	readyFile string
}

func profileCommand() *cobra.Command {
	var f samplingFlags
	cmd := &cobra.Command{
		Use:   "profile {--pid PID | --name GLOB | --cgroup PATH | --all | -- command [argument …]}",
		Short: "Show where CPU time goes: sample the stacks of running programs",
		Long: `Profile looks 99 times a second at what the targets' threads execute, and shows
the functions, paths, modules and threads that the time goes to. Stacks are
unwound in the kernel by the programs' own unwind information: they are whole
without frame pointers, and nothing is added to the target.

With -o the profile goes to a file, in the format of its ending: .pb.gz (pprof),
.html and .svg (flame graph), .folded, .json, .txt. Without it a report is printed.

It ends after --duration, with the last target, or with Ctrl-C, which loses
nothing of what was sampled. A command given after -- is profiled from its first
instruction to its end, and its exit status is passed on; what sbxtrace itself
prints goes to stderr then.`,
		Example: `  sudo sbxtrace profile --pid 4711 --duration 30s
  sudo sbxtrace profile --name nginx --duration 10s -o cpu.html
  sudo sbxtrace profile --all --duration 5s -o machine.pb.gz
  sudo sbxtrace profile --hz 999 -o build.svg -- make -j8`,
		RunE: func(cmd *cobra.Command, args []string) error {
			dash := cmd.ArgsLenAtDash()
			switch {
			case dash < 0 && len(args) > 0, dash > 0:
				return usagef("%q is no flag: a command to profile comes after --", args[0])
			case dash == 0 && len(args) == 0:
				return usagef("no command: give it after --")
			}
			f.hzGiven = cmd.Flags().Changed("hz")
			return sample(cmd, &f, args)
		},
	}
	f.targetFlags.add(cmd)
	f.symbolFlags.add(cmd)
	fs := cmd.Flags()
	fs.BoolVar(&f.all, "all", false, "every process of this machine")
	fs.StringVar(&f.event, "event", "cpu", "what is sampled: cpu, off-cpu, lock, wall, page-fault, alloc, or calls of the functions that fit a glob")
	fs.IntVar(&f.hz, "hz", loader.DefaultSampleRate, "samples per second and CPU")
	fs.Uint64Var(&f.period, "period", 1, "of page faults, allocations and calls: sample one in `N`")
	fs.BoolVar(&f.wakers, "wakers", false, "off-cpu, lock: on top of each stack that of the thread that ended the wait")
	fs.DurationVar(&f.duration, "duration", 0, "stop after this `time`; 0: with Ctrl-C or the last target")
	fs.BoolVar(&f.noKernel, "no-kernel", false, "leave out the kernel's part of the stacks")
	fs.BoolVar(&f.noFollow, "no-follow", false, "do not profile child processes")
	fs.StringVar(&f.user, "user", "", "run the command as this `user`; empty: the caller of sudo")
	fs.StringVarP(&f.output, "output", "o", "", "write to `file`; - is standard output")
	fs.StringVar(&f.format, "format", "", "pprof, folded, flamegraph, svg, json or text, whatever the file's ending")
	fs.StringVar(&f.color, "color", "auto", "auto, always or never")
	fs.IntVar(&f.limit, "limit", 20, "functions in the report")
	fs.BoolVar(&f.byThread, "by-thread", false, "keep threads apart in reports and flame graphs")
	fs.StringVar(&f.readyFile, "ready-file", "", "create `file` when sampling has begun")
	return cmd
}

// check finds mistakes in the flags before anything is done.
func (f *samplingFlags) check(command []string) (exporter.Format, error) {
	picked := !f.empty()
	switch {
	case len(command) > 0 && (picked || f.all):
		return "", usagef("a command and --pid, --name, --cgroup or --all exclude each other")
	case picked && f.all:
		return "", usagef("--all and --pid, --name or --cgroup exclude each other")
	case len(command) == 0 && !picked && !f.all:
		return "", usagef("no target: give --pid, --name, --cgroup, --all, or a command after --")
	case f.user != "" && len(command) == 0:
		return "", usagef("--user is for a command after --")
	case f.duration < 0:
		return "", usagef("a time cannot be negative")
	case f.hz < 1:
		return "", usagef("--hz %d: at least 1", f.hz)
	case f.limit < 1:
		return "", usagef("--limit %d: at least 1", f.limit)
	}
	if limit, err := loader.MaxSampleRate(); err == nil && f.hz > limit {
		return "", usagef("--hz %d: this kernel takes at most %d samples a second (sysctl kernel.perf_event_max_sample_rate)", f.hz, limit)
	}
	event, functions := f.sampled()
	if _, err := functions.Compile(); err != nil {
		return "", usagef("--event %s: %w", f.event, err)
	}
	timed := event == loader.SampleCPU || event == loader.SampleWall
	probes := event == loader.SampleCalls || event == loader.SampleAllocs
	switch {
	case f.wakers && event != loader.SampleOffCPU && event != loader.SampleLock:
		return "", usagef("--wakers is for --event off-cpu and lock: nobody ends what %s samples", f.event)
	case f.period == 0:
		return "", usagef("--period 0: at least 1")
	case f.period > 1 && event != loader.SampleFaults && !probes:
		return "", usagef("--period is for page faults, allocations and calls; how often time is sampled --hz says")
	case f.period > 1<<31:
		return "", usagef("--period %d: at most 2147483648", f.period)
	case f.hzGiven && !timed:
		return "", usagef("--hz is for --event cpu and wall; one in how many others is sampled --period says")
	case probes && f.all:
		return "", usagef("--event %s puts probes into programs: say which, --all is not for it", f.event)
	}
	if _, err := choice("--color", f.color, map[string]bool{"auto": true, "always": true, "never": true}); err != nil {
		return "", err
	}
	if f.format == "" && (f.output == "" || f.output == "-") {
		return exporter.FormatText, nil
	}
	return profileFormat(f.format, f.output)
}

func sample(cmd *cobra.Command, f *samplingFlags, command []string) error {
	format, err := f.check(command)
	if err != nil {
		return err
	}
	pids, err := f.targets()
	if err != nil {
		return err
	}
	std := cmd.OutOrStdout()
	if len(command) > 0 && f.output == "" {
		std = cmd.ErrOrStderr() // stdout is the command's
	}
	out, err := openOutput(f.output, std, f.color)
	if err != nil {
		return err
	}
	defer out.Close()
	n := &notes{w: cmd.ErrOrStderr()}
	event, functions := f.sampled()
	p := profiler.New(profiler.Options{
		Event: event, Functions: functions, Rate: f.hz, Period: f.period, Wakers: f.wakers, All: f.all, Follow: !f.noFollow, NoKernel: f.noKernel, Note: n.printf,
	})
	defer p.Close()
	s := &sampling{f: f, p: p, out: out, format: format, notes: n}
	if len(command) > 0 {
		return s.command(cmd, command)
	}
	ctx, stop := untilSignal()
	defer stop()
	if err := s.begin(pids, nil); err != nil {
		return err
	}
	return s.run(ctx)
}

// targets returns the processes that flags pick and that can be profiled.
func (f *samplingFlags) targets() ([]uint32, error) {
	if f.empty() {
		return nil, nil
	}
	pids, err := f.resolve()
	if err != nil {
		return nil, err
	}
	for _, pid := range f.pids {
		// Of those that were named by their ids, each must do.
		if err := tracer.CheckTarget(uint32(pid)); err != nil {
			return nil, err
		}
	}
	return pids, nil
}

// sampling is one profile from its beginning to the file.
type sampling struct {
	f      *samplingFlags
	p      *profiler.Profiler
	out    *output
	format exporter.Format
	notes  *notes
}

// begin adds the targets and starts to sample. of says what is profiled, nil for
// the processes.
func (s *sampling) begin(pids []uint32, command []string) error {
	var last error
	added := 0
	for _, pid := range pids {
		if err := s.p.AddPID(pid); err != nil {
			// One of several that ended meanwhile is no reason to give up.
			if len(pids) > 1 && errors.Is(err, symbolizer.ErrNoProcess) {
				last = err
				continue
			}
			return err
		}
		added++
	}
	if added == 0 && last != nil {
		return last
	}
	if s.f.all {
		if err := s.p.AddAll(); err != nil {
			return err
		}
	}
	r, err := s.p.Start()
	if errors.Is(err, profiler.ErrNoFunction) && s.f.event != "alloc" {
		return fmt.Errorf("--event %s: no function of the target matches, and it is no event (%s)", s.f.event, list(slices.Sorted(maps.Keys(sampleEvents))))
	}
	if err != nil {
		return err
	}
	what := "every process"
	switch {
	case len(command) > 0:
		what = fmt.Sprintf("%s (pid %d)", command[0], pids[0])
	case len(pids) == 1 && r.Processes == 1:
		what = fmt.Sprintf("pid %d", pids[0])
	case !s.f.all:
		what = fmt.Sprintf("%d processes", r.Processes)
	}
	f := s.f
	how := f.event
	switch event, _ := f.sampled(); event {
	case loader.SampleCPU, loader.SampleWall:
		how = fmt.Sprintf("%s at %d Hz", f.event, f.hz)
	case loader.SampleCalls:
		how = "calls of " + count(r.Functions, "function")
	}
	line := fmt.Sprintf("profiling: %s of %s, unwind tables of %s, %d ms", how, what, count(r.Files, "file"), r.Took.Milliseconds())
	s.notes.printf("%s", line)
	return writeReady(s.f.readyFile, line)
}

// run samples until ctx is done, the time is up or the last target has ended,
// and writes the profile.
func (s *sampling) run(ctx context.Context) error {
	if s.f.duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.f.duration)
		defer cancel()
	}
	stop := s.progress()
	err := s.p.Run(ctx)
	stop()
	if err != nil {
		return err
	}
	return s.write()
}

// command profiles a command from its first instruction to its end.
func (s *sampling) command(cmd *cobra.Command, command []string) error {
	user := s.f.user
	if user == "" {
		if uid, _, ok := sudoCaller(); ok {
			user = strconv.Itoa(uid)
		}
	}
	target, err := tracer.Launch(tracer.LaunchOptions{
		Args: command, User: user, Stdin: cmd.InOrStdin(), Stdout: cmd.OutOrStdout(), Stderr: os.Stderr,
	})
	switch {
	case errors.Is(err, tracer.ErrCommandNotFound):
		return exitError{exitNotFound, err}
	case errors.Is(err, tracer.ErrNotExecutable):
		return exitError{exitNotExecutable, err}
	case err != nil:
		return err
	}
	if err := s.begin([]uint32{uint32(target.PID())}, command); err != nil {
		return abandon(target, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	defer forwardSignals(cancel, target)()
	if err := target.Release(); err != nil {
		s.notes.printf("%v", err)
	}
	err = s.run(ctx)
	// The time may be up first: the command runs on, and its status is ours.
	s.p.Close()
	status, waitErr := target.Wait()
	if err = errors.Join(err, waitErr); err == nil && status != 0 {
		return exitStatus(status)
	}
	return err
}

// progress shows on a terminal how sampling goes on until the function that it
// returns is called.
func (s *sampling) progress() (stop func()) {
	f, ok := s.notes.w.(*os.File)
	if !ok {
		return func() {}
	}
	if _, terminal := term.Terminal(f.Fd()); !terminal {
		return func() {}
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(250 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-end:
				s.notes.status("")
				return
			case <-tick.C:
				s.notes.status(progressLine(s.p.Progress(), s.f.duration))
			}
		}
	}()
	return func() {
		close(end)
		<-ended
	}
}

// progressLine says how far sampling is.
func progressLine(p profiler.Progress, duration time.Duration) string {
	var b strings.Builder
	if left := duration - p.Elapsed; duration > 0 {
		fmt.Fprintf(&b, "%d s left", max(0, int((left+time.Second-1)/time.Second)))
	} else {
		fmt.Fprintf(&b, "%d s, Ctrl-C ends it", int(p.Elapsed.Seconds()))
	}
	fmt.Fprintf(&b, ", %s", term.Plural(p.Samples, "sample"))
	if p.Lost > 0 {
		fmt.Fprintf(&b, ", %s lost", term.Count(p.Lost))
	}
	return b.String()
}

// write makes the profile and writes it.
func (s *sampling) write() error {
	prof, err := s.p.Profile()
	if err != nil {
		return err
	}
	s.sayStats()
	if len(prof.Sample) == 0 && s.format == exporter.FormatText {
		return s.out.Close()
	}
	w := bufio.NewWriterSize(s.out, 64<<10)
	err = exporter.WriteProfile(w, prof, s.format, exporter.Options{
		ByThread: s.f.byThread, Color: s.out.color, Width: s.out.width, Limit: s.f.limit,
	})
	return errors.Join(err, w.Flush(), s.out.Close())
}

// sayStats tells what the profile is worth: how many samples, how many of the
// stacks are whole and why others are not, what was lost.
func (s *sampling) sayStats() {
	st := s.p.Stats()
	if st.Samples == 0 {
		s.notes.printf("no samples: the target did nothing that --event %s counts", s.f.event)
	} else {
		s.notes.printf("%s, %.1f %% of the stacks are complete; %s of unwind tables", term.Plural(st.Samples, "sample"),
			100*st.Complete(), term.Bytes(int64(st.Unwind.Bytes)))
	}
	for cut := trace.CutNone + 1; cut < trace.Cuts; cut++ {
		if n := st.Cut[cut]; n > 0 {
			s.notes.printf("%s cut (%s), most of them in %s", term.Plural(n, "stack"), cut, s.p.CutPlace(cut))
		}
	}
	if st.Lost > 0 {
		s.notes.printf("%s lost: the kernel's buffer was full", term.Plural(st.Lost, "sample"))
	}
	if n := st.Unwind.Dropped; n > 0 {
		s.notes.printf("%s had no room in the tables", term.Plural(uint64(n), "unwind row"))
	}
}
