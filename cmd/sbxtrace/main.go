// Command sbxtrace shows what a running process does, with nothing added to it.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit statuses, as documented in docs/exit-codes.md.
const (
	exitFailure = 1 // something did not work
	exitUsage   = 2 // the command line is wrong
	exitCheck   = 3 // a check (diff, budget) did not pass

	// Of `run`, as env(1) has them.
	exitNotExecutable = 126
	exitNotFound      = 127
)

// usageError is a mistake in the command line.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// usagef makes a usageError.
func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// exitStatus ends sbxtrace with a status and without a message: `run` passes
// its command's status on.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// exitError is an error with a status of its own.
type exitError struct {
	status int
	err    error
}

func (e exitError) Error() string { return e.err.Error() }
func (e exitError) Unwrap() error { return e.err }

func main() {
	// A reader that goes away (`sbxtrace … | head`) is an error of a write,
	// so that probes are taken out in order, and not a sudden death.
	signal.Ignore(syscall.SIGPIPE)
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is main with its surroundings given; it returns the exit status.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	cmd := rootCommand()
	cmd.SetArgs(args)
	cmd.SetIn(stdin)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	executed, err := cmd.ExecuteC()
	var status exitStatus
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		return int(status)
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "sbxtrace: %v\nRun '%s --help' for usage.\n", err, executed.CommandPath())
		return exitUsage
	case errors.Is(err, syscall.EPIPE):
		return 0
	}
	fmt.Fprintf(stderr, "sbxtrace: %v\n", err)
	var own exitError
	if errors.As(err, &own) {
		return own.status
	}
	return exitFailure
}

// rootCommand puts the commands together.
func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "sbxtrace",
		Short: "See what a running process does, with nothing added to it",
		Long: `sbxtrace traces the calls of running, unmodified programs: no rebuild, no
restart, no agent. It attaches eBPF probes to the functions of C, C++, Rust and
Go programs and shows their calls as they happen.

  sudo sbxtrace attach --pid 4711               the calls of a live process
  sudo sbxtrace attach --pid 4711 'handle*'     only some functions
  sudo sbxtrace run -- ./server --port 8080     from the first call of main
  sudo sbxtrace profile --pid 4711              where its CPU time goes
  sbxtrace functions ./server                   what can be traced
  sbxtrace report cpu.pb.gz                     where the time of a profile goes
  sbxtrace export cpu.pb.gz -o cpu.html         the same as a flame graph
  sbxtrace doctor                               what this machine can do`,
		Version:       versionString(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(attachCommand(), runCommand(), recordCommand(), triggerCommand(), replayCommand(), recordingCommand(), profileCommand(), functionsCommand(), exportCommand(), reportCommand(), doctorCommand(), guardCommand())
	return root
}
