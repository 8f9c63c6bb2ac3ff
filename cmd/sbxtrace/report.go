package main

import (
	"bufio"
	"errors"

	"github.com/spf13/cobra"

	"github.com/sbxtrace/sbxtrace/exporter"
)

type reportFlags struct {
	inputFlags
	output, color string
	limit         int
}

func reportCommand() *cobra.Command {
	var f reportFlags
	cmd := &cobra.Command{
		Use:   "report FILE…",
		Short: "Show where the time of a profile or recording goes",
		Long: `Report prints what a profile says on a terminal: how the whole is divided among
modules or packages, the functions with most of it, the hottest paths as a tree,
modules and threads, and how many stacks are incomplete.

FILE is a pprof profile, of whichever tool, folded stacks, or a recording, whose
calls are summed up by stack; - is standard input. Several are merged. With --base it prints what changed: shares of each
profile's own total, + for more than in the base.`,
		Example: `  sbxtrace report cpu.pb.gz
  sbxtrace report cpu.pb.gz --thread 'io_*' --limit 50
  sbxtrace report new.pb.gz --base old.pb.gz
  sbxtrace report heap.pb.gz --sample-type inuse_space`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("no file to report on")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return report(cmd, &f, args) },
	}
	f.inputFlags.add(cmd)
	fs := cmd.Flags()
	fs.IntVar(&f.limit, "limit", 20, "functions to print")
	fs.StringVarP(&f.output, "output", "o", "", "write to `file` instead")
	fs.StringVar(&f.color, "color", "auto", "auto, always or never")
	return cmd
}

func report(cmd *cobra.Command, f *reportFlags, paths []string) error {
	if err := checkFormat("text", f.color); err != nil {
		return err
	}
	if f.limit < 1 {
		return usagef("--limit %d: at least 1", f.limit)
	}
	p, err := f.read(cmd, paths)
	if err != nil {
		return err
	}
	out, err := openOutput(f.output, cmd.OutOrStdout(), f.color)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(out, 64<<10)
	err = exporter.WriteProfile(w, p, exporter.FormatText, exporter.Options{
		SampleType: f.sampleType, ByThread: f.byThread, Color: out.color, Width: out.width, Limit: f.limit,
	})
	return asUsage(errors.Join(err, w.Flush(), out.Close()))
}
