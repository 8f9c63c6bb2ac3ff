package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/sbxtrace/sbxtrace/profiler"
	"github.com/sbxtrace/sbxtrace/symbolizer"
	"github.com/sbxtrace/sbxtrace/tracer"
)

// profileFlags are the flags of profile.
type profileFlags struct {
	targetFlags
	all       bool
	event     string
	hz        int
	duration  time.Duration
	output    string
	format    string
	noKernel  bool
	noFollow  bool
	user      string
	readyFile string
}

func profileCommand() *cobra.Command {
	var f profileFlags
	cmd := &cobra.Command{
		Use:   "profile [flags] [-- command [argument …]]",
		Short: "Sample the stacks of running processes or of a command",
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return profileRun(cmd, &f, args)
		},
	}
	f.targetFlags.add(cmd)
	fs := cmd.Flags()
	fs.BoolVarP(&f.all, "all", "a", false, "every process of this machine")
	fs.StringVarP(&f.event, "event", "e", "cpu", "what is sampled: cpu")
	fs.IntVar(&f.hz, "hz", 99, "samples per second and CPU")
	fs.DurationVarP(&f.duration, "duration", "d", 0, "stop after this `time`")
	fs.StringVarP(&f.output, "output", "o", "", "write to `file`; - for standard output")
	fs.StringVar(&f.format, "format", "pprof", "pprof")
	fs.BoolVar(&f.noKernel, "no-kernel", false, "leave out what happens in the kernel")
	fs.BoolVar(&f.noFollow, "no-follow", false, "do not profile child processes")
	fs.StringVar(&f.user, "user", "", "run the command as this `user`; empty: the caller of sudo")
	fs.StringVar(&f.readyFile, "ready-file", "", "create `file` when sampling has begun")
	return cmd
}

func profileRun(cmd *cobra.Command, f *profileFlags, args []string) error {
	dash := cmd.ArgsLenAtDash()
	command := args
	if dash < 0 {
		command = nil
	}
	out, err := openOutput(f.output, cmd.OutOrStdout(), "auto")
	if err != nil {
		return err
	}
	defer out.Close()
	n := &notes{w: cmd.ErrOrStderr()}
	p, err := profiler.New(profiler.Options{Rate: f.hz, All: f.all, Follow: !f.noFollow, NoKernel: f.noKernel, Note: n.printf})
	if err != nil {
		return err
	}
	defer p.Close()
	ctx, stop := untilSignal()
	defer stop()
	var target *tracer.Launched
	var pids []uint32
	if len(command) > 0 {
		user := f.user
		if user == "" {
			if uid, _, ok := sudoCaller(); ok {
				user = strconv.Itoa(uid)
			}
		}
		target, err = tracer.Launch(tracer.LaunchOptions{
			Args: command, User: user, Stdin: cmd.InOrStdin(), Stdout: cmd.OutOrStdout(), Stderr: os.Stderr,
		})
		if err != nil {
			return err
		}
		pids = []uint32{uint32(target.PID())}
	} else if !f.all {
		if pids, err = f.resolve(); err != nil {
			return err
		}
	}
	for _, pid := range pids {
		if err := p.AddPID(pid); err != nil {
			if len(pids) > 1 && errors.Is(err, symbolizer.ErrNoProcess) {
				continue
			}
			return err
		}
	}
	r, err := p.Start()
	if err != nil {
		return err
	}
	n.printf("profiling: %d processes, %d files (%.1f MiB unwind info in %v), %v, %d KiB", r.Processes, r.Files, float64(r.UnwindBytes)/(1<<20), r.Building, r.Took, r.Memory>>10)
	if err := writeReady(f.readyFile, "profiling"); err != nil {
		return err
	}
	if target != nil {
		forwardSignals(ctx, target)
		if err := target.Release(); err != nil {
			n.printf("%v", err)
		}
	}
	if f.duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.duration)
		defer cancel()
	}
	if err := p.Run(ctx); err != nil {
		return err
	}
	prof, err := p.Profile()
	if err != nil {
		return err
	}
	s := p.Stats()
	n.printf("%d samples, %d lost, %.2f %% complete, cuts %v, %+v", s.Samples, s.Lost, 100*s.Complete(), s.Cut, s.Unwind)
	for cut, at := range s.CutAt {
		for id, c := range at {
			n.printf("cut %v %d at %s", cut, c, p.Place(id))
		}
	}
	if err := prof.Write(out); err != nil {
		return fmt.Errorf("write profile: %w", err)
	}
	return out.Close()
}

var _ io.Writer
