package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/sbxtrace/sbxtrace/recording"
	"github.com/sbxtrace/sbxtrace/trigger"
)

// recordFlags say where a session is recorded, and how much of it is kept.
type recordFlags struct {
	path string
	ring string
	last time.Duration

	triggers      []string
	before, after time.Duration
	maxTriggers   int

	conditions []*trigger.Condition
	flight     bool                  // in memory until a trigger fires
	kept       recording.RingOptions // what ring and last say
}

// isRing reports whether only the newest is kept.
func (f *recordFlags) isRing() bool { return f.kept != recording.RingOptions{} }

// check reads the flags.
func (f *recordFlags) check() error {
	if f.last < 0 {
		return usagef("--last %v: a time cannot be negative", f.last)
	}
	f.kept.Last = f.last
	if f.ring != "" {
		n, err := parseSize(f.ring)
		if err != nil {
			return usagef("--ring: %w", err)
		}
		if n < recording.MinRing {
			return usagef("--ring %s: it takes 1MiB or more", f.ring)
		}
		f.kept.Bytes = int64(n)
	}
	return f.checkTriggers()
}

func recordCommand() *cobra.Command {
	var f traceFlags
	var target targetFlags
	var user string
	cmd := &cobra.Command{
		Use:   "record [function …] (--pid PID | -- command [argument …])",
		Short: "Record the calls of processes, or of a command from its start",
		Long: `Record traces as attach and run do and keeps what it sees in a file instead of
showing it: a few bytes per call, readable at every moment, also when sbxtrace or
the machine is killed. Replay prints of it what attach would have printed, goes to
any moment, and back.

With --ring or --last only the newest is kept, for as long as it takes until
something happens. With --trigger, or --ring without -o, it is kept in memory and
saved whenever a trigger fires, SIGUSR2 comes or sbxtrace trigger is called.`,
		Example: `  sudo sbxtrace record --pid 4711 -o server.sbx
  sudo sbxtrace record 'parse_*' -o import.sbx -- ./import data.csv
  sudo sbxtrace record --name nginx --ring 64MiB --last 5m -o nginx.sbx
  sudo sbxtrace record --pid 4711 --trigger 'call(handle*) > 50ms' --before 10s --after 1s
  sudo sbxtrace record --name worker --trigger crash --trigger 'ret(read_config) < 0' --level args
  sbxtrace replay server.sbx`,
		RunE: func(cmd *cobra.Command, args []string) error {
			f.silent, f.sort, f.format, f.color = true, "total", "text", "auto"
			if err := f.record.check(); err != nil {
				return err
			}
			dash := cmd.ArgsLenAtDash()
			switch {
			case dash >= 0 && target.given():
				return usagef("processes or a command: not both")
			case dash >= 0 && dash == len(args):
				return usagef("no command: give it after --")
			case dash < 0 && !target.given():
				return usagef("nothing to record: give --pid, --name or --cgroup, or a command after --")
			case user != "" && dash < 0:
				return usagef("--user is for a command")
			}
			if f.record.needsArgs() && f.level != "args" && f.level != "stacks" {
				return usagef("--trigger: return values are seen at --level args or stacks")
			}
			if len(f.record.conditions) > 0 && (f.level == "count" || f.level == "latency") {
				return usagef("--trigger needs --level calls or more")
			}
			name := "session"
			if dash >= 0 {
				name = filepath.Base(args[dash])
			}
			if f.record.path == "" && !f.record.flight {
				f.record.path = name + time.Now().Format("-20060102-150405") + ".sbx"
			}
			if dash >= 0 {
				return runTraced(cmd, &f, user, args[:dash], args[dash:])
			}
			return attach(cmd, &f, &target, args)
		},
	}
	f.addTracing(cmd)
	target.add(cmd)
	fs := cmd.Flags()
	fs.StringVarP(&f.record.path, "output", "o", "", "write the recording to `file`; empty: named by command and time")
	fs.StringVar(&f.record.ring, "ring", "", "keep only the newest `size` of it, such as 64MiB")
	fs.DurationVar(&f.record.last, "last", 0, "keep only the newest `time` of it, such as 30s")
	fs.StringArrayVar(&f.record.triggers, "trigger", nil, "save the newest when this `condition` is met, such as 'call(FUNC) > 50ms'; may be given several times")
	fs.DurationVar(&f.record.before, "before", 0, "of the time before a trigger save only so `much`; 0: all that is kept")
	fs.DurationVar(&f.record.after, "after", 0, "go on for this `time` after a trigger before saving")
	fs.IntVar(&f.record.maxTriggers, "max-triggers", 0, "end after so `many` recordings; 0: never")
	fs.StringVar(&user, "user", "", "run the command as this `user`; empty: the caller of sudo")
	return cmd
}

// given reports whether any process is named.
func (f *targetFlags) given() bool { return len(f.pids)+len(f.names)+len(f.cgroups) > 0 }

// prepareRecording sees to it that a recording can be written.
func (w *watch) prepareRecording() error {
	switch f := &w.flags.record; {
	case f.flight:
		if err := unix.Access(f.stemDir(), unix.W_OK); err != nil {
			return fmt.Errorf("recordings cannot be saved in %s: %w", f.stemDir(), err)
		}
		return nil
	case f.path == "":
		return nil
	}
	var err error
	w.file, err = newRecording(w.flags.record.path)
	return err
}

// beginRecording begins the recording: everything is attached.
func (w *watch) beginRecording() error {
	if w.flags.record.flight {
		return w.beginFlight()
	}
	if w.file == nil {
		return nil
	}
	if err := w.file.begin(); err != nil {
		return err
	}
	f := &w.flags.record
	s := w.flags.session(w.tracer, w.flags.args)
	store := recording.NewFileStore(w.file.File)
	if f.isRing() {
		s.Ring = &recording.Ring{Bytes: f.kept.Bytes, Last: f.kept.Last}
		store = recording.NewRingStore(w.file.File, f.kept)
	}
	var err error
	w.rec, err = w.flags.newRecorder(w.tracer, store, f.path, s)
	return err
}

// beginFlight begins to keep the newest in memory.
func (w *watch) beginFlight() error {
	f := &w.flags.record
	w.flight = newFlight(f, w.flags.session(w.tracer, w.flags.args), w.notes)
	var err error
	if w.rec, err = w.flags.newRecorder(w.tracer, w.flight.memory, "memory", w.flight.session); err != nil {
		return err
	}
	w.flight.rec, w.rec.flight = w.rec, w.flight
	w.triggers, err = w.flight.watch(w.tracer.Functions())
	return err
}

// recordingFailed tells that the recording ends here. Where there is nothing
// else to see, so does the session.
func (w *watch) recordingFailed(err error, cancel context.CancelFunc) {
	if w.flags.silent {
		cancel()
		return
	}
	w.notes.printf("recording ends here: %v", err)
}

// close removes the file of a recording that has not begun.
func (w *watch) close() {
	if w.file != nil && w.rec == nil {
		w.file.discard()
	}
}
