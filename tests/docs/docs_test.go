package docs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// repository is the top of the repository, seen from this package.
const repository = "../.."

func TestMain(m *testing.M) {
	if os.Getenv(playing) != "" {
		if err := play(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// pages returns the documentation by name.
func pages(t *testing.T) map[string]string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(repository, "docs", "*.md"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no pages: %v", err)
	}
	found := map[string]string{}
	for _, name := range append(names, filepath.Join(repository, "README.md"), filepath.Join(repository, "CHANGELOG.md"), filepath.Join(repository, "KNOWN_ISSUES.md")) {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		page, err := filepath.Rel(repository, name)
		if err != nil {
			t.Fatal(err)
		}
		found[page] = string(text)
	}
	return found
}

// TestCommands runs every command that the documentation shows.
func TestCommands(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: tracing takes CAP_BPF and CAP_PERFMON")
	}
	p, err := build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	byPage := map[string][]command{}
	for page, text := range pages(t) {
		commands, err := extract(page, text)
		if err != nil {
			t.Error(err)
		}
		byPage[page] = commands
	}
	for name, h := range helps(t, filepath.Join(p.dir, "sbxtrace")) {
		byPage[name+" --help"] = extractHelp(name+" --help", h.text)
	}
	for page, commands := range byPage {
		if len(commands) > 0 {
			t.Run(page, func(t *testing.T) {
				t.Parallel()
				p.play(t, commands)
			})
		}
	}
}

// play lets a player run the commands of a page, and fails the test for those
// that did something else than the page says.
func (p *programs) play(t *testing.T, commands []command) {
	t.Helper()
	dir := t.TempDir()
	if err := p.stage(dir); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	input, err := json.Marshal(commands)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), p.env...), playing+"=1", "REPO="+p.repo, "HOME="+dir, "TERM=dumb",
		"PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"))
	cmd.Stdin = bytes.NewReader(input)
	stderr := new(bytes.Buffer)
	cmd.Stderr = stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID, Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL,
	}
	out, err := cmd.Output()
	results := json.NewDecoder(bytes.NewReader(out))
	for i := range commands {
		var o outcome
		if decodeErr := results.Decode(&o); decodeErr != nil {
			t.Fatalf("%s was not run: %v\n%s", &commands[i], err, stderr)
		}
		t.Run(fmt.Sprint(commands[i].Line), func(t *testing.T) {
			if o.Problem != "" {
				t.Errorf("%s\n%s\nprinted:\n%s", &commands[i], o.Problem, shorten(o.Printed))
			}
		})
	}
	if err != nil {
		t.Errorf("%v\n%s", err, stderr)
	}
}

// shorten keeps the beginning and the end of a long output.
func shorten(text string) string {
	const most = 60
	lines := strings.SplitAfter(text, "\n")
	if len(lines) <= 2*most {
		return text
	}
	return strings.Join(lines[:most], "") + ellipsis + "\n" + strings.Join(lines[len(lines)-most:], "")
}
