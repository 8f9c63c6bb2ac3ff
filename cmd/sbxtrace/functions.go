package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sbxtrace/sbxtrace/tracer"
	"github.com/sbxtrace/sbxtrace/view"
)

func functionsCommand() *cobra.Command {
	var f selectFlags
	var target targetFlags
	var verbose bool
	var format string
	cmd := &cobra.Command{
		Use:   "functions BINARY | --pid PID [function …]",
		Short: "List what can be traced in a program",
		Long: `Functions lists the functions of a program, or of everything that a process has
mapped, which attach and run would trace with the same selectors: name, module,
size, language and source line. With --verbose it says where the probes go and
why, what a traced call costs, and what cannot be probed.

It needs no privileges for files and processes that you may read.`,
		Example: `  sbxtrace functions ./server
  sbxtrace functions ./server 'handle_*' --verbose
  sudo sbxtrace functions --pid 4711 --module 'libssl*'
  sbxtrace functions /usr/bin/postgres --usdt '*'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := choice("--format", format, map[string]bool{"text": true, "json": true}); err != nil {
				return err
			}
			o := tracer.ListOptions{USDT: f.usdt, Lines: true}
			if len(target.pids)+len(target.names)+len(target.cgroups) == 0 {
				if len(args) == 0 {
					return usagef("no program: give a file, or --pid")
				}
				o.Path, args = args[0], args[1:]
			} else {
				pids, err := target.resolve()
				if err != nil {
					return err
				}
				o.PIDs = pids
			}
			o.Selector = f.selector(args)
			return listFunctions(cmd, o, verbose, format == "json")
		},
	}
	f.add(cmd)
	target.add(cmd)
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "where probes go, why, and what they cost")
	cmd.Flags().StringVar(&format, "format", "text", "text or json (one object per line)")
	return cmd
}

func listFunctions(cmd *cobra.Command, o tracer.ListOptions, verbose, asJSON bool) error {
	list, err := tracer.List(o)
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(cmd.OutOrStdout(), 64<<10)
	if asJSON {
		err = listJSON(out, list)
	} else {
		listText(out, list, verbose)
	}
	if list.LeftOut > 0 && !asJSON {
		fmt.Fprintf(cmd.ErrOrStderr(), "sbxtrace: %s of libraries and the language's runtime left out: '*' lists all\n",
			count(list.LeftOut, "function"))
	}
	return errors.Join(err, out.Flush())
}

// listJSON prints an object per function, as docs/functions.md describes.
func listJSON(w io.Writer, list *tracer.Listing) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for i := range list.Entries {
		if err := enc.Encode(&list.Entries[i]); err != nil {
			return err
		}
	}
	return nil
}

func listText(w io.Writer, list *tracer.Listing, verbose bool) {
	width := 0
	for i := range list.Entries {
		width = max(width, min(len(list.Entries[i].Name), 48))
	}
	module := ""
	for i := range list.Entries {
		e := &list.Entries[i]
		if e.Module != module {
			if module != "" {
				fmt.Fprintln(w)
			}
			module = e.Module
			fmt.Fprintf(w, "%s\n", module)
		}
		size := ""
		if e.Size > 0 {
			size = fmt.Sprintf("%d B", e.Size)
		}
		fmt.Fprintf(w, "  %-*s  %9s  %-7s  %s\n", width, e.Name, size, e.Lang, e.Where())
		if verbose {
			listVerbose(w, e)
		} else if e.Problem != "" {
			fmt.Fprintf(w, "      ✗ %s\n", e.Problem)
		}
	}
	probeable, problems, inlined := list.Count()
	fmt.Fprintf(w, "\n%s can be traced", count(probeable, "function"))
	if problems > 0 {
		fmt.Fprintf(w, ", %d cannot", problems)
	}
	if inlined > 0 {
		fmt.Fprintf(w, ", %d exist only inlined", inlined)
	}
	fmt.Fprintln(w)
}

func listVerbose(w io.Writer, e *tracer.ListEntry) {
	if e.Problem != "" {
		fmt.Fprintf(w, "      ✗ %s\n", e.Problem)
		return
	}
	if e.Static {
		args := e.Arguments
		if args == "" {
			args = "none"
		}
		fmt.Fprintf(w, "      arguments: %s\n", args)
		return
	}
	fmt.Fprintf(w, "      entry   %s\n      return  %s\n      cost    about %s per call; name from %s\n",
		e.Entry, e.Return, strings.TrimSpace(view.Duration(uint64(e.CostNS))), e.Source)
	if len(e.Aliases) > 0 {
		fmt.Fprintf(w, "      also    %s\n", strings.Join(e.Aliases, ", "))
	}
	for _, warning := range e.Warnings {
		fmt.Fprintf(w, "      ⚠ %s\n", warning)
	}
}
