package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/google/pprof/profile"
	"github.com/spf13/cobra"

	"github.com/sbxtrace/sbxtrace/exporter"
)

// given reports whether a flag that is about profiles alone was given.
func (f *inputFlags) given() bool {
	return f.base != "" || f.sampleType != "" || f.byThread || f.scale != 1 || len(f.pids) > 0 || !f.filter.Empty()
}

// inputFlags say which profiles are read, and what of them is shown.
type inputFlags struct {
	base       string
	sampleType string
	byThread   bool
	scale      float64
	pids       []string
	filter     exporter.Filter
}

func (f *inputFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&f.base, "base", "", "compare with the profile in `file`: show what changed since")
	fs.StringVar(&f.sampleType, "sample-type", "", "`type` of value to show, as the profile names it (cpu, samples, alloc_space …)")
	fs.BoolVar(&f.byThread, "by-thread", false, "keep threads apart: each is a frame below its stacks")
	fs.Float64Var(&f.scale, "scale", 1, "multiply all values by `factor`")
	fs.StringSliceVar(&f.pids, "pid", nil, "only samples of this `process`")
	fs.StringSliceVar(&f.filter.Threads, "thread", nil, "only samples of threads with this id, or a name that fits the `pattern`")
	fs.StringSliceVar(&f.filter.Modules, "module", nil, "only stacks through a module that fits the `pattern`")
	fs.StringSliceVar(&f.filter.Funcs, "func", nil, "only stacks through a function that fits the `pattern`")
}

// read reads the profiles at the paths as one, and the base to compare with.
func (f *inputFlags) read(cmd *cobra.Command, paths []string) (*profile.Profile, error) {
	if f.scale == 0 {
		return nil, usagef("--scale 0 leaves nothing")
	}
	f.filter.PIDs = f.pids
	var all []*profile.Profile
	for _, path := range paths {
		p, err := readProfile(cmd, path)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	p, err := exporter.Merge(all...)
	if err != nil {
		return nil, fmt.Errorf("merge: %w", err)
	}
	if p, err = f.choose(p, "the profile"); err != nil {
		return nil, err
	}
	if f.base == "" {
		return p, nil
	}
	base, err := readProfile(cmd, f.base)
	if err != nil {
		return nil, err
	}
	if base, err = f.choose(base, "the base"); err != nil {
		return nil, err
	}
	if p, err = exporter.Diff(p, base); err != nil {
		return nil, fmt.Errorf("compare with %s: %w", f.base, err)
	}
	return p, nil
}

// choose applies filters and scale.
func (f *inputFlags) choose(p *profile.Profile, what string) (*profile.Profile, error) {
	if !f.filter.Empty() {
		if p = f.filter.Apply(p); len(p.Sample) == 0 {
			return nil, fmt.Errorf("no sample of %s fits --pid, --thread, --module and --func", what)
		}
	}
	if f.scale != 1 {
		exporter.Scale(p, f.scale)
	}
	return p, nil
}

// readProfile reads the file at path, or standard input if it is "-". Of a
// recording it sums the calls up.
func readProfile(cmd *cobra.Command, path string) (*profile.Profile, error) {
	rec, err := openRecording(path)
	if err != nil {
		return nil, err
	}
	if rec != nil {
		defer rec.Close()
		return recordedProfile(cmd, rec, path)
	}
	if path == "-" {
		p, err := exporter.Read(cmd.InOrStdin())
		if err != nil {
			return nil, fmt.Errorf("standard input: %w", err)
		}
		return p, nil
	}
	f, err := os.Open(path)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("%s: no such file", path)
		}
		return nil, err
	}
	defer f.Close()
	p, err := exporter.Read(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

// asUsage makes a type that the profile does not have a mistake of the command
// line.
func asUsage(err error) error {
	if errors.Is(err, exporter.ErrSampleType) || errors.Is(err, exporter.ErrFormat) {
		return usageError{err}
	}
	return err
}
