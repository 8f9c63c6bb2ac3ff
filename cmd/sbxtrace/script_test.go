package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sbxtrace/sbxtrace/internal/targets"
)

var update = flag.Bool("update", false, "write the goldens")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"sbxtrace": main})
}

// TestScripts runs what needs no root: flags, errors, exit statuses, listings.
//
// Scripts have two commands beside those of testscript: `status N sbxtrace …`
// expects an exit status, `nobody N sbxtrace …` does so as a user without
// privileges. Programs to look at are in $CALLS, $STRIPPED and so on, a recording in $RECORDING; $OWN is a
// process of the user without privileges, $SELF that of the test.
func TestScripts(t *testing.T) {
	programs := map[string]string{
		"CALLS":      targets.Build(t, "calls"),
		"STRIPPED":   targets.Build(t, "calls", targets.Strip()),
		"EXCEPTIONS": targets.Build(t, "exceptions"),
		"IFUNC":      targets.Build(t, "ifunc"),
		"GOINLINE":   targets.Build(t, "goinline"),
		"GOSTRIPPED": targets.Build(t, "gocalls", targets.Strip()),
	}
	letNobodyIn(t)
	recording, err := filepath.Abs("../../recording/testdata/v1.sbx")
	if err != nil {
		t.Fatal(err)
	}
	own := startAs(t, programs["CALLS"], 65534)
	testscript.Run(t, testscript.Params{
		Dir:           filepath.Join("testdata", "script"),
		UpdateScripts: *update,
		Setup: func(env *testscript.Env) error {
			for name, path := range programs {
				env.Setenv(name, path)
			}
			env.Setenv("RECORDING", recording)
			env.Setenv("SELF", strconv.Itoa(os.Getpid()))
			env.Setenv("OWN", strconv.Itoa(own))
			return nil
		},
		Condition: func(name string) (bool, error) {
			if name == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", name)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status": func(ts *testscript.TestScript, neg bool, args []string) {
				expectStatus(ts, neg, args, nil)
			},
			"nobody": func(ts *testscript.TestScript, neg bool, args []string) {
				var as []string
				if os.Geteuid() == 0 {
					as = []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"}
				}
				expectStatus(ts, neg, args, as)
			},
		},
	})
}

// expectStatus runs a command, with others before it, for an exit status.
func expectStatus(ts *testscript.TestScript, neg bool, args, before []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N command [argument …]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	command := append(before, args[1:]...)
	err = ts.Exec(command[0], command[1:]...)
	got := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

// startAs starts a target as the user, if this is root, and returns its process
// id once it runs.
func startAs(t *testing.T, path string, uid uint32) int {
	t.Helper()
	cmd := exec.Command(path)
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	p := targets.StartCmd(t, cmd)
	p.Ready()
	return p.PID()
}

// letNobodyIn lets other users run the sbxtrace of the scripts, which testscript
// has put into a directory of its own.
func letNobodyIn(t *testing.T) {
	t.Helper()
	path, err := exec.LookPath("sbxtrace")
	if err != nil {
		t.Fatal(err)
	}
	for dir := filepath.Dir(path); strings.Contains(dir, "testscript-main"); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}
