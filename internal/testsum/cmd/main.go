// Command cmd is the front of package testsum for the Makefile and .ci/run.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/sbxtrace/sbxtrace/internal/testsum"
)

const usage = `usage:
  testsum test  [flags] -- GO-TEST-ARGS...   run go test, a result per test
  testsum check [flags] -- COMMAND...        run a command, one result
  testsum total [-results DIR] GROUP...      sum up; the last line is "N passed, N failed"
flags:
`

// errFailed says that the run was fine and its result is not: exit code 1
// without a further message.
var errFailed = errors.New("failed")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errFailed):
		os.Exit(1)
	default:
		fmt.Fprintln(os.Stderr, "testsum:", err)
		os.Exit(2)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("testsum", flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
	}
	o := testsum.Options{Out: os.Stdout}
	flags.StringVar(&o.Name, "group", "", "`name` of the group of tests or of the check")
	flags.StringVar(&o.Results, "results", "build/results", "`directory` of the results")
	flags.BoolVar(&o.Strict, "strict", os.Getenv("CI") == "true", "skips that are not on the list are failures (default: CI=true in the environment)")
	flags.IntVar(&o.Min, "min", 1, "fail when fewer tests than `n` passed")
	skips := flags.String("skips", ".ci/allowed-skips", "`file` with the allowed skips")
	if len(args) == 0 {
		flags.Usage()
		return errors.New("no command given")
	}
	verb := args[0]
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	rest := flags.Args()
	if verb != "total" && o.Name == "" {
		return errors.New("-group is missing")
	}
	var sum testsum.Counts
	switch verb {
	case "test":
		var err error
		if o.Skips, err = testsum.ReadSkips(*skips); err != nil {
			return err
		}
		g, err := testsum.GoTest(ctx, o, rest)
		if err != nil {
			return err
		}
		sum = g.Counts
	case "check":
		if len(rest) == 0 {
			return errors.New("check: no command given")
		}
		g, err := testsum.Check(ctx, o, rest)
		if err != nil {
			return err
		}
		sum = g.Counts
	case "total":
		sum = testsum.Total(os.Stdout, o.Results, rest)
	default:
		return fmt.Errorf("unknown command %q; the commands are %s", verb, strings.Join([]string{"test", "check", "total"}, ", "))
	}
	if sum.Failed > 0 {
		return errFailed
	}
	return nil
}
