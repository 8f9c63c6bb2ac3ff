package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/sbxtrace/sbxtrace/symbolizer"
)

func triggerCommand() *cobra.Command {
	var pids []uint
	var all bool
	cmd := &cobra.Command{
		Use:   "trigger",
		Short: "Have running flight recorders save what they have",
		Long: `Trigger tells an sbxtrace record that keeps the newest in memory to save it now,
as SIGUSR2 does.`,
		Example: "  sudo sbxtrace trigger",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("it takes no arguments: --pid picks one of several recorders")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			found, err := recorders()
			if err != nil {
				return err
			}
			if len(pids) > 0 {
				wanted := found[:0]
				for _, pid := range pids {
					if !slices.Contains(found, int(pid)) {
						return fmt.Errorf("pid %d is no sbxtrace record", pid)
					}
					wanted = append(wanted, int(pid))
				}
				found = wanted
			}
			switch {
			case len(found) == 0:
				return fmt.Errorf("no sbxtrace record is running")
			case len(found) > 1 && !all && len(pids) == 0:
				return usagef("several are running, with the pids %v: give --pid or --all", found)
			}
			for _, pid := range found {
				if err := syscall.Kill(pid, syscall.SIGUSR2); err != nil {
					return fmt.Errorf("tell pid %d: %w", pid, err)
				}
			}
			return nil
		},
	}
	cmd.Flags().UintSliceVar(&pids, "pid", nil, "only these `processes` of sbxtrace record")
	cmd.Flags().BoolVar(&all, "all", false, "all that are running")
	return cmd
}

// recorders are the processes that run `sbxtrace record`.
func recorders() ([]int, error) {
	pids, err := symbolizer.Processes()
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	var out []int
	for _, pid := range pids {
		exe, err := symbolizer.Exe(pid)
		if err != nil || pid == os.Getpid() || filepath.Base(exe) != filepath.Base(self) {
			continue
		}
		if args, err := symbolizer.Cmdline(pid); err == nil && len(args) > 1 && args[1] == "record" {
			out = append(out, pid)
		}
	}
	return out, nil
}
