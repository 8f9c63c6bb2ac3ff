package symbolizer

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// fixtures builds test programs once per run of the tests.
var fixtures struct {
	dir string

	mu    sync.Mutex
	built map[string]func() (string, error)
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "symbolizer-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fixtures.dir = dir
	fixtures.built = make(map[string]func() (string, error))
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// fixture returns the path of a file that build makes in a directory of its own,
// once for each name.
func fixture(t testing.TB, name string, build func(dir string) (path string, err error)) string {
	t.Helper()
	fixtures.mu.Lock()
	once := fixtures.built[name]
	if once == nil {
		once = sync.OnceValues(func() (string, error) {
			dir := filepath.Join(fixtures.dir, strings.Map(func(r rune) rune {
				if strings.ContainsRune(" /(),*", r) {
					return '_'
				}
				return r
			}, name))
			if err := os.Mkdir(dir, 0o755); err != nil {
				return "", err
			}
			return build(dir)
		})
		fixtures.built[name] = once
	}
	fixtures.mu.Unlock()
	path, err := once()
	if err != nil {
		t.Fatalf("build %s: %v", name, err)
	}
	return path
}

// need skips a test without the tools that it uses. In CI they must be there.
func need(t testing.TB, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err == nil {
			continue
		}
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is not installed", tool)
		}
		t.Skipf("%s is not installed", tool)
	}
}

// needFile skips a test without a file of the system. In CI it must be there.
func needFile(t testing.TB, pattern string) string {
	t.Helper()
	found, _ := filepath.Glob(pattern)
	if len(found) > 0 {
		return found[0]
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is not installed", pattern)
	}
	t.Skipf("%s is not installed", pattern)
	return ""
}

func runTool(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", cmd, err, stderr.Bytes())
	}
	return string(out), nil
}

func mustRun(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := runTool(name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// compile builds testdata/src/SOURCE with gcc or g++ and returns the program.
func compile(t testing.TB, source string, flags ...string) string {
	t.Helper()
	compiler := "gcc"
	if filepath.Ext(source) == ".cc" {
		compiler = "g++"
	}
	need(t, compiler)
	return fixture(t, source+" "+strings.Join(flags, " "), func(dir string) (string, error) {
		out := filepath.Join(dir, "prog")
		args := append([]string{"-O2", "-o", out, filepath.Join("testdata/src", source)}, flags...)
		_, err := runTool(compiler, args...)
		return out, err
	})
}

// derive runs tool with the arguments, in which IN is the path of the input and
// OUT that of the result.
func derive(t testing.TB, in, name, tool string, args ...string) string {
	t.Helper()
	need(t, tool)
	return fixture(t, filepath.Base(filepath.Dir(in))+" "+name, func(dir string) (string, error) {
		out := filepath.Join(dir, "prog")
		r := strings.NewReplacer("IN", in, "OUT", out)
		for i := range args {
			args[i] = r.Replace(args[i])
		}
		_, err := runTool(tool, args...)
		return out, err
	})
}

// buildGo builds the module in testdata/src/go.
func buildGo(t testing.TB, name string, env []string, flags ...string) string {
	t.Helper()
	need(t, "go")
	return fixture(t, "go "+name, func(dir string) (string, error) {
		out := filepath.Join(dir, "app")
		cmd := exec.Command("go", append(append([]string{"build", "-o", out}, flags...), ".")...)
		cmd.Dir = "testdata/src/go"
		cmd.Env = append(append(os.Environ(), "GOWORK=off", "GOFLAGS="), env...)
		if text, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("%s: %w\n%s", cmd, err, text)
		}
		return out, nil
	})
}

// open opens a binary for the duration of the test.
func open(t testing.TB, path string, o Options) *Binary {
	t.Helper()
	b, err := o.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// functions returns the functions of b by address.
func functions(t testing.TB, b *Binary) map[uint64]Function {
	t.Helper()
	funcs, err := b.Functions()
	if err != nil {
		t.Fatal(err)
	}
	byAddr := make(map[uint64]Function, len(funcs))
	last := uint64(0)
	for _, f := range funcs {
		if f.Addr <= last {
			t.Fatalf("functions are not sorted: %#x (%s) after %#x", f.Addr, f.Name, last)
		}
		last = f.Addr
		if f.Name == "" {
			t.Errorf("function at %#x has no name", f.Addr)
		}
		byAddr[f.Addr] = f
	}
	return byAddr
}

// byName returns the only function of that name.
func byName(t testing.TB, b *Binary, name string) *Function {
	t.Helper()
	funcs, err := b.Functions()
	if err != nil {
		t.Fatal(err)
	}
	var found *Function
	for i := range funcs {
		if funcs[i].Name == name {
			if found != nil {
				t.Fatalf("%s: two functions called %s: %#x, %#x", b.Path, name, found.Addr, funcs[i].Addr)
			}
			found = &funcs[i]
		}
	}
	if found == nil {
		t.Fatalf("%s: no function called %s", b.Path, name)
	}
	return found
}

// nmSymbol is a symbol as nm prints it.
type nmSymbol struct {
	addr uint64
	size uint64
	kind byte
	name string
}

// nm lists the symbols of a file with nm or "go tool nm".
func nm(t testing.TB, command []string, path string) []nmSymbol {
	t.Helper()
	need(t, command[0])
	out := mustRun(t, command[0], append(command[1:], path)...)
	var syms []nmSymbol
	lines := bufio.NewScanner(strings.NewReader(out))
	for lines.Scan() {
		var s nmSymbol
		// Address, size if there is one, kind, name, which may have spaces.
		fields := strings.Fields(lines.Text())
		if len(fields) < 3 {
			continue
		}
		addr, err := strconv.ParseUint(fields[0], 16, 64)
		if err != nil {
			continue
		}
		s.addr = addr
		at := 1
		base := 16
		if command[0] == "go" {
			base = 10
		}
		if len(fields[1]) > 1 || command[0] == "go" {
			if s.size, err = strconv.ParseUint(fields[1], base, 64); err == nil {
				at = 2
			}
		}
		s.kind = fields[at][0]
		_, s.name, _ = strings.Cut(lines.Text(), " "+fields[at]+" ")
		s.name = strings.TrimSpace(s.name)
		syms = append(syms, s)
	}
	if len(syms) == 0 {
		t.Fatalf("nm found no symbols in %s", path)
	}
	return syms
}
