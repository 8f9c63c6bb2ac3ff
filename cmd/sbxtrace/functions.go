package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sbxtrace/sbxtrace/tracer"
)

// functionFlags are the flags of functions.
type functionFlags struct {
	selectFlags
	target        targetFlags
	verbose       bool
	format, color string
	output        string
}

func functionsCommand() *cobra.Command {
	var f functionFlags
	cmd := &cobra.Command{
		Use:   "functions BINARY | --pid PID [function …]",
		Short: "List what can be traced in a program",
		Long: `Functions lists what attach and run would trace with the same selectors in a
program, or in everything that a process has mapped: functions with their size,
language, module and source line, and static probes. With --verbose it says
where the probes go and why, what a traced call costs, and what cannot be probed.

It needs no privileges for files and processes that you may read.`,
		Example: `  sbxtrace functions ./server
  sbxtrace functions ./server 'handle_*' --verbose
  sudo sbxtrace functions --pid 4711 --module 'libssl*' '*'
  sbxtrace functions /usr/bin/python3 --usdt '*'`,
		RunE: func(cmd *cobra.Command, args []string) error { return functions(cmd, &f, args) },
	}
	f.selectFlags.add(cmd)
	f.target.add(cmd)
	fs := cmd.Flags()
	fs.BoolVarP(&f.verbose, "verbose", "v", false, "where probes go, why, what they cost, and what cannot be probed")
	fs.StringVar(&f.format, "format", "text", "text or json (one object per line)")
	fs.StringVarP(&f.output, "output", "o", "", "write to `file` instead")
	fs.StringVar(&f.color, "color", "auto", "auto, always or never")
	return cmd
}

func functions(cmd *cobra.Command, f *functionFlags, args []string) error {
	if err := checkFormat(f.format, f.color); err != nil {
		return err
	}
	o := tracer.ListOptions{USDT: f.usdt, Lines: true, Inlined: f.verbose}
	if f.target.empty() {
		if len(args) == 0 {
			return usagef("no program: give a file, or --pid")
		}
		o.Path, args = findProgram(args[0]), args[1:]
	} else {
		var err error
		if o.PIDs, err = f.target.resolve(); err != nil {
			return err
		}
	}
	if err := f.check(args); err != nil {
		return err
	}
	o.Selector = f.selector(args)
	list, err := tracer.List(o)
	if err != nil {
		return explainPath(o.Path, err)
	}
	return printListing(cmd, f, list)
}

// empty reports whether no process is asked for.
func (f *targetFlags) empty() bool { return len(f.pids)+len(f.names)+len(f.cgroups) == 0 }

// findProgram returns the path of a program: name itself if there is such a
// file, else what a shell would run.
func findProgram(name string) string {
	if _, err := os.Stat(name); err == nil || strings.Contains(name, "/") {
		return name
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return name
	}
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// explainPath says of a program that is not there what may have been meant.
func explainPath(path string, err error) error {
	switch {
	case path == "" || !errors.Is(err, os.ErrNotExist):
		return err
	case strings.ContainsAny(path, "*?["):
		return usagef("%s: no such file: the program comes before the functions", path)
	case strings.Contains(path, "/"):
		return fmt.Errorf("%s: no such file", path)
	}
	return fmt.Errorf("%s: neither a file nor a command in $PATH", path)
}

func printListing(cmd *cobra.Command, f *functionFlags, list *tracer.Listing) error {
	out, err := openOutput(f.output, cmd.OutOrStdout(), f.color)
	if err != nil {
		return err
	}
	defer out.Close()
	n := &notes{w: cmd.ErrOrStderr()}
	for _, note := range list.Notes {
		n.printf("%v", note)
	}
	w := bufio.NewWriterSize(out, 64<<10)
	switch {
	case f.format == "json":
		err = listJSON(w, list)
	case f.verbose:
		listVerbose(w, list, paint(out.color))
	default:
		listTable(w, list, paint(out.color), out.width)
	}
	if err = errors.Join(err, w.Flush()); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	n.printf("%s", listingNote(list, f.verbose))
	return out.Close()
}

// listingNote sums a listing up.
func listingNote(list *tracer.Listing, verbose bool) string {
	var found []string
	probeable := list.Probeable()
	if probeable > 0 || len(list.Static) == 0 {
		found = append(found, count(probeable, "function"))
	}
	if n := len(list.Static); n > 0 {
		found = append(found, count(n, "static probe"))
	}
	note := strings.Join(found, " and ") + " can be traced"
	parts := 0
	for i := range list.Functions {
		if f := &list.Functions[i]; f.Err != nil && f.Function.Fragment {
			parts++
		}
	}
	if n := len(list.Functions) - probeable - parts; n > 0 {
		note += fmt.Sprintf(", %d cannot", n)
		if !verbose {
			note += " (--verbose says why)"
		}
	}
	switch {
	case parts == 1:
		note += ", 1 is a part of another"
	case parts > 1:
		note += fmt.Sprintf(", %d are parts of others", parts)
	}
	if n := len(list.Inlined); n > 0 {
		exist := "exist"
		if n == 1 {
			exist = "exists"
		}
		note += fmt.Sprintf(", %d %s only inlined", n, exist)
	}
	switch {
	case list.LeftOut > 0 && list.Libraries > 0:
		note += fmt.Sprintf("; left out: %s of the toolchain and %s ('*' lists all)", count(list.LeftOut, "function"), countLibraries(list.Libraries))
	case list.LeftOut > 0:
		note += fmt.Sprintf("; left out: %s of the toolchain and other packages ('*' lists all)", count(list.LeftOut, "function"))
	}
	return note
}

func countLibraries(n int) string {
	if n == 1 {
		return "a library"
	}
	return fmt.Sprintf("%d libraries", n)
}
