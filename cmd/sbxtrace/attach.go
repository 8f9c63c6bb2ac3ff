package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/sbxtrace/sbxtrace/symbolizer"
	"github.com/sbxtrace/sbxtrace/tracer"
)

// targetFlags pick processes.
type targetFlags struct {
	pids    []uint
	names   []string
	cgroups []string
}

func (f *targetFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.UintSliceVarP(&f.pids, "pid", "p", nil, "process `id`; may be given several times")
	fs.StringArrayVarP(&f.names, "name", "n", nil, "processes whose name or executable matches `glob`")
	fs.StringArrayVar(&f.cgroups, "cgroup", nil, "processes of a control group, by `path`")
}

// resolve returns the process ids.
func (f *targetFlags) resolve() ([]uint32, error) {
	if len(f.pids)+len(f.names)+len(f.cgroups) == 0 {
		return nil, usagef("no target: give --pid, --name or --cgroup")
	}
	var pids []uint32
	seen := make(map[uint32]bool)
	add := func(found ...int) {
		for _, n := range found {
			pid := uint32(n)
			if !seen[pid] {
				seen[pid] = true
				pids = append(pids, pid)
			}
		}
	}
	for _, pid := range f.pids {
		if pid == 0 || pid > 1<<22 {
			return nil, usagef("--pid %d: process ids are between 1 and 4194304", pid)
		}
		add(int(pid))
	}
	for _, name := range f.names {
		found, err := symbolizer.FindByName(name)
		if err != nil {
			return nil, fmt.Errorf("--name %s: %w", name, err)
		}
		if len(found) == 0 {
			return nil, fmt.Errorf("--name %s: %w", name, symbolizer.ErrNoProcess)
		}
		add(found...)
	}
	for _, path := range f.cgroups {
		found, err := symbolizer.FindByCgroup(path)
		if err != nil {
			return nil, fmt.Errorf("--cgroup %s: %w", path, err)
		}
		if len(found) == 0 {
			return nil, fmt.Errorf("--cgroup %s: no process in that control group; /proc/PID/cgroup says which one a process is in", path)
		}
		add(found...)
	}
	return pids, nil
}

// joins tells of a process that was not there when the targets were resolved
// whether it is one; nil if that depends on its number alone.
func (f *targetFlags) joins() func(pid int) bool {
	if len(f.names)+len(f.cgroups) == 0 {
		return nil
	}
	return func(pid int) bool {
		return slices.ContainsFunc(f.names, func(glob string) bool { return symbolizer.HasName(pid, glob) }) ||
			slices.ContainsFunc(f.cgroups, func(path string) bool { return symbolizer.InCgroup(pid, path) })
	}
}

func attachCommand() *cobra.Command {
	var f traceFlags
	var target targetFlags
	cmd := &cobra.Command{
		Use:   "attach --pid PID [function …]",
		Short: "Trace the calls of running processes",
		Long: `Attach shows the calls that running, unmodified processes make, as a live tree
per thread or goroutine, and a summary at the end. Without functions it traces
the target's own: the packages of the main module of a Go program, the main
executable of others. Functions are given by glob; see docs/selectors.md.

Ctrl-C ends it. The target is not stopped, and nothing is left in it.`,
		Example: `  sudo sbxtrace attach --pid 4711
  sudo sbxtrace attach --pid 4711 'handle_*' --min-duration 1ms
  sudo sbxtrace attach --name nginx --module 'libssl*' --level latency --duration 10s
  sudo sbxtrace attach --pid 4711 'net/http.(*conn).serve' --format json -o calls.json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return attach(cmd, &f, &target, args)
		},
	}
	f.add(cmd)
	target.add(cmd)
	return cmd
}

func attach(cmd *cobra.Command, f *traceFlags, target *targetFlags, args []string) error {
	opt, err := f.options(args)
	if err != nil {
		return err
	}
	pids, err := target.resolve()
	if err != nil {
		return err
	}
	out, err := openOutput(f.output, cmd.OutOrStdout(), f.color)
	if err != nil {
		return err
	}
	defer out.Close()
	n := &notes{w: cmd.ErrOrStderr()}
	opt.Note = n.printf
	if opt.Follow {
		opt.Joins = target.joins()
	}

	ctx, stop := untilSignal()
	defer stop()
	attached := unlessInterrupted(ctx, n)
	defer attached()
	t, err := tracer.New(opt)
	if err != nil {
		return err
	}
	defer t.Close()
	w, err := newWatch(f, t, opt.Level, out, n)
	if err != nil {
		return err
	}
	defer w.close()
	if err := t.AddPIDs(pids...); err != nil {
		return err
	}
	report, err := t.Start()
	if err != nil {
		return err
	}
	attached()
	if note := skippedNote(report); note != "" {
		n.printf("%s", note)
	}
	if err := w.beginRecording(); err != nil {
		return err
	}
	line := attachedLine(report, pids)
	n.printf("%s", line)
	if err := writeReady(f.readyFile, line); err != nil {
		return err
	}
	if f.duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.duration)
		defer cancel()
	}
	return errors.Join(w.run(ctx), out.Close())
}
