package main

import (
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/google/pprof/profile"
	"github.com/spf13/cobra"

	"github.com/sbxtrace/sbxtrace/exporter"
	"github.com/sbxtrace/sbxtrace/recording"
	"github.com/sbxtrace/sbxtrace/replay"
)

// openRecording opens the file at path if it is a recording; nil if it is
// something else.
func openRecording(path string) (*recording.File, error) {
	if path == "-" {
		return nil, nil
	}
	rec, err := recording.Open(path)
	switch {
	case err == nil:
		return rec, nil
	case errors.Is(err, recording.ErrNotRecording):
		return nil, nil
	case errors.Is(err, recording.ErrVersion):
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	// Whoever reads it next says why it cannot be read.
	return nil, nil
}

// recordedOptions are the options for what a recording says.
func recordedOptions(rec *recording.File, names *replay.Names) exporter.CallOptions {
	opt := exporter.CallOptions{
		Frame: names.Frame,
		Process: func(pid uint32) string {
			if p, ok := names.Process(pid); ok && p.Exe != "" {
				return path.Base(p.Exe)
			}
			return ""
		},
	}
	first, _ := rec.Span()
	if wall, ok := rec.Wall(first); ok {
		opt.Wall = wall
	}
	if len(rec.Blocks) > 0 {
		opt.Seed = rec.Blocks[0].Header.Recording
	}
	return opt
}

// exportCalls writes the calls of a recording in a format that has each of them.
func exportCalls(cmd *cobra.Command, rec *recording.File, file string, format exporter.Format, to string) error {
	warnDamaged(cmd, rec, file)
	var w io.Writer = io.Discard
	var out *output
	player := replay.NewPlayer(rec, nil)
	opt := recordedOptions(rec, player.Names())
	if format == exporter.FormatOTLP && isURL(to) {
		opt.Send = exporter.OTLPSender(to)
	} else {
		var err error
		if out, err = openOutput(to, cmd.OutOrStdout(), "never"); err != nil {
			return err
		}
		w = out
	}
	calls, err := exporter.NewCalls(w, player.Names(), format, opt)
	if err != nil {
		return err
	}
	player.SetSink(calls)
	// A writer that fails ends the replay at once.
	err = player.Run(replay.Options{Pace: func(uint64) error { return calls.Err() }})
	if closed := calls.Close(); err == nil {
		err = closed
	}
	if out != nil {
		err = errors.Join(err, out.Close())
	}
	return err
}

// recordedProfile sums the calls of a recording up by stack.
func recordedProfile(cmd *cobra.Command, rec *recording.File, file string) (*profile.Profile, error) {
	warnDamaged(cmd, rec, file)
	player := replay.NewPlayer(rec, nil)
	sums := exporter.NewCallProfile(player.Names(), recordedOptions(rec, player.Names()))
	player.SetSink(sums)
	if err := player.Run(replay.Options{}); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return sums.Profile(), nil
}

// warnDamaged says on stderr what a recording lacks.
func warnDamaged(cmd *cobra.Command, rec *recording.File, file string) {
	if rec.Damage.Any() {
		fmt.Fprintf(cmd.ErrOrStderr(), "sbxtrace: %s is damaged: what can be read of it is exported\n", file)
	}
}

func isURL(s string) bool { return strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://") }
