package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/sbxtrace/sbxtrace/symbolizer"
)

// symbolFlags say where debug information is looked for.
type symbolFlags struct{ dirs []string }

// add adds the flags; they hold from before the command runs.
func (f *symbolFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.dirs, "symbols-dir", nil, "look for debug files in `directory` too, by build id or name; may be given several times")
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error { return f.use(cmd) }
}

func (f *symbolFlags) use(cmd *cobra.Command) error {
	for _, dir := range f.dirs {
		info, err := os.Stat(dir)
		if err != nil {
			return fmt.Errorf("--symbols-dir: %w", err)
		}
		if !info.IsDir() {
			return usagef("--symbols-dir %s: not a directory", dir)
		}
	}
	servers := symbolizer.NewDebuginfod(os.Getenv)
	if servers != nil {
		servers.Begin = func(what string) (context.Context, func(error)) {
			fmt.Fprintf(cmd.ErrOrStderr(), "sbxtrace: asking debuginfod for the %s; Ctrl-C goes on without\n", what)
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			return ctx, func(err error) {
				stop()
				if err != nil && !errors.Is(err, symbolizer.ErrNotServed) {
					fmt.Fprintf(cmd.ErrOrStderr(), "sbxtrace: debuginfod: %v\n", err)
				}
			}
		}
	}
	symbolizer.SetDebugSearch(symbolizer.DebugSearch{Dirs: f.dirs, Debuginfod: servers})
	return nil
}
