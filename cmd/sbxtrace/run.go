package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/sbxtrace/sbxtrace/tracer"
	"github.com/sbxtrace/sbxtrace/uprobes"
)

func runCommand() *cobra.Command {
	var f traceFlags
	var user string
	cmd := &cobra.Command{
		Use:   "run [function …] -- command [argument …]",
		Short: "Start a program and trace it from its first call",
		Long: `Run starts a command under observation: it is stopped before the first
instruction of its own, probes are attached, and it is let go, so that not one
call of main is missed. Its exit status is passed on, 128 plus the signal's
number if one ended it, 127 if there is no such command, 126 if it cannot be
executed. The command keeps stdin and stdout; what sbxtrace shows goes to stderr, or to the file of -o.

Under sudo the command runs as the user who called sudo.`,
		Example: `  sudo sbxtrace run -- ./server --port 8080
  sudo sbxtrace run 'parse_*' --min-duration 100us -- ./import data.csv
  sudo sbxtrace run --summary -o calls.txt -- go version`,
		RunE: func(cmd *cobra.Command, args []string) error {
			dash := cmd.ArgsLenAtDash()
			if dash < 0 || dash == len(args) {
				return usagef("no command: give it after --")
			}
			return runTraced(cmd, &f, user, args[:dash], args[dash:])
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&user, "user", "", "run the command as this `user`; empty: the caller of sudo")
	return cmd
}

func runTraced(cmd *cobra.Command, f *traceFlags, user string, functions, command []string) error {
	opt, err := f.options(functions)
	if err != nil {
		return err
	}
	opt.StopOnExec, opt.GuardArgs = opt.Follow, []string{guardName}
	out, err := openOutput(f.output, cmd.ErrOrStderr(), f.color)
	if err != nil {
		return err
	}
	defer out.Close()
	n := &notes{w: cmd.ErrOrStderr()}
	opt.Note = n.printf

	t, err := tracer.New(opt)
	if err != nil {
		return err
	}
	defer t.Close()
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
	status, err := watchLaunched(f, opt, t, target, command, out, n)
	switch {
	case err != nil:
		return err
	case status != 0:
		return exitStatus(status)
	}
	return nil
}

// watchLaunched attaches to a command that was launched, lets it go, and
// traces it to its end. It returns the command's exit status.
func watchLaunched(f *traceFlags, opt tracer.Options, t *tracer.Tracer, target *tracer.Launched, command []string, out *output, n *notes) (int, error) {
	w, err := newWatch(f, t, opt.Level, out, n)
	if err != nil {
		return 0, abandon(target, err)
	}
	defer w.close()
	pid := uint32(target.PID())
	if err := t.AddPIDs(pid); err != nil {
		return 0, abandon(target, err)
	}
	report, err := t.Start()
	if err != nil {
		if !opt.Follow || !nothingYet(err) {
			return 0, abandon(target, err)
		}
		n.printf("nothing to trace in %s itself: %v", filepath.Base(command[0]), err)
	}
	if note := skippedNote(report); note != "" {
		n.printf("%s", note)
	}
	if err := w.beginRecording(); err != nil {
		return 0, abandon(target, err)
	}
	line := attachedLine(report, []uint32{pid})
	n.printf("%s", line)
	if err := writeReady(f.readyFile, line); err != nil {
		return 0, abandon(target, err)
	}

	ctx, cancel := context.WithCancel(context.Background())
	if f.duration > 0 {
		ctx, cancel = context.WithTimeout(ctx, f.duration)
	}
	defer cancel()
	defer forwardSignals(cancel, target)()
	if err := target.Release(); err != nil {
		n.printf("%v", err)
	}
	err = w.run(ctx)
	// The view may end first (its time is up, its reader gone): the command
	// runs on, and its status is still ours.
	t.Close()
	status, waitErr := target.Wait()
	return status, errors.Join(err, waitErr, out.Close())
}

// nothingYet reports whether the programs that the command will execute may
// still have what it lacks itself: a script, or a program that starts others.
func nothingYet(err error) bool {
	var noMatch *uprobes.NoMatchError
	return errors.Is(err, tracer.ErrNoFunctions) || errors.As(err, &noMatch)
}

// abandon ends a command that cannot be traced before it has done anything,
// and reports why.
func abandon(target *tracer.Launched, why error) error {
	return errors.Join(why, target.Signal(os.Kill), target.Release(), reap(target))
}

func reap(target *tracer.Launched) error {
	_, err := target.Wait()
	return err
}

// forwardSignals passes a request to end on to the command, until stop is called.
// It ends the session when the command has ended upon that, also if processes that
// it started live on. What was typed at a terminal has reached the command too.
func forwardSignals(end context.CancelFunc, target *tracer.Launched) (stop func()) {
	signals, done := make(chan os.Signal, 4), make(chan struct{})
	signal.Notify(signals, os.Interrupt, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		var ended <-chan struct{} // nil until somebody wants it to end
		for {
			select {
			case <-done:
				return
			case <-ended:
				ended = nil
				end()
			case s := <-signals:
				ended = target.Ended()
				if (s == os.Interrupt || s == syscall.SIGQUIT) && inForeground() {
					continue
				}
				_ = target.Signal(s) // it may have ended by itself
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(done)
	}
}

// inForeground reports whether keys typed at the terminal raise signals in
// this process and those it starts.
func inForeground() bool {
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer tty.Close()
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}
