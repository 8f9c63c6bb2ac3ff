package tests

import (
	"debug/elf"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/sbxtrace/sbxtrace/internal/targets"
)

// bare copies a program built with SplitDebug without its symbols, and returns
// where those are.
func bare(t testing.TB, target string, options ...targets.Option) (program, symbols string) {
	t.Helper()
	needRoot(t)
	built := targets.Build(t, target, append(options, targets.SplitDebug())...)
	program = filepath.Join(t.TempDir(), target)
	copyFile(t, built, program)
	return program, built + ".debug"
}

// unnamed returns the names of functions by what they are called where only
// unwind tables tell of them: the module and the offset from where it is loaded.
func unnamed(t testing.TB, module, symbols string) map[string]string {
	t.Helper()
	f, err := elf.Open(symbols)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	base := ^uint64(0)
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD {
			base = min(base, p.Vaddr)
		}
	}
	table, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]string{}
	for _, s := range table {
		if elf.ST_TYPE(s.Info) == elf.STT_FUNC && s.Value != 0 {
			names[fmt.Sprintf("%s+%#x", module, s.Value-base)] = s.Name
		}
	}
	return names
}

// Without symbols functions are found in the unwind tables, and called by their
// place in the file.
func TestUnnamed(t *testing.T) {
	for label, options := range map[string][]targets.Option{
		"default": nil, "O0": {targets.OptLevel("0")}, "no-pie": {targets.NoPIE()}, "clang": {targets.Clang()},
	} {
		t.Run(label, func(t *testing.T) {
			t.Parallel()
			program, symbols := bare(t, "calls", options...)
			names := unnamed(t, "calls", symbols)
			p := targets.Start(t, program, "--rounds", "25")
			p.Ready()
			truth, r := observe(t, p)
			for _, c := range r.calls {
				if c.Module != "" && c.Module != "calls" {
					t.Errorf("%s is said to be in %q", c.Func, c.Module)
				}
				c.Func, c.Parent = nameOf(names, c.Func), nameOf(names, c.Parent)
			}
			rows := map[string]summary{}
			for name, row := range r.rows {
				rows[nameOf(names, name)] = row
			}
			r.rows = rows
			situation{}.compare(t, r, truth)
		})
	}
}

func nameOf(names map[string]string, place string) string {
	if name, ok := names[place]; ok {
		return name
	}
	return place
}

// What is left in a stripped program that exports its functions.
func TestExported(t *testing.T) {
	situation{target: "calls", args: []string{"--rounds", "25"}}.inBuilds(t, map[string][]targets.Option{
		"default": {targets.Strip(), targets.Flags("-rdynamic")},
		"no-pie":  {targets.Strip(), targets.NoPIE(), targets.Flags("-rdynamic")},
	})
}

// Symbols where distributions put them: below /usr/lib/debug, by the build id and
// by the name, as the target sees that directory.
func TestDebugDirectory(t *testing.T) {
	for label, place := range map[string]func(program, id string) string{
		"build-id": func(_, id string) string { return filepath.Join(".build-id", id[:2], id[2:]+".debug") },
		"name":     func(program, _ string) string { return program + ".debug" },
	} {
		t.Run(label, func(t *testing.T) {
			t.Parallel()
			program, symbols := bare(t, "calls")
			at := filepath.Join("/usr/lib/debug", place(program, buildID(t, program)))
			p := startIn(t, fmt.Sprintf("mkdir -p /usr/lib/debug; mount -t tmpfs none /usr/lib/debug; mkdir -p %s; cp %s %s", filepath.Dir(at), symbols, at),
				program, "--rounds", "25")
			truth, r := observe(t, p)
			situation{}.compare(t, r, truth)
		})
	}
}

// Symbols in sbxtrace's own /usr/lib/debug are those of a program in a container
// too, if the build id says so.
func TestDebugDirectoryOutside(t *testing.T) {
	t.Parallel()
	needTool(t, "unshare")
	program, symbols := bare(t, "calls")
	id := buildID(t, program)
	p := targets.Start(t, program, "--rounds", "25")
	p.Ready()
	s := sbxtraceBy(t, []string{"unshare", "--mount", "sh", "-e", "-c", fmt.Sprintf(
		`mkdir -p /usr/lib/debug; mount -t tmpfs none /usr/lib/debug
mkdir -p /usr/lib/debug/.build-id/%[1]s; cp %[3]s /usr/lib/debug/.build-id/%[1]s/%[2]s.debug; exec "$@"`, id[:2], id[2:], symbols), "sh"},
		"attach", "--pid", fmt.Sprint(p.PID()))
	s.waitReady()
	traced(t, p, s)
}

// buildID reads the build id that gcc and clang here write by default.
func buildID(t testing.TB, path string) string {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := f.Section(".note.gnu.build-id")
	if s == nil {
		t.Fatalf("%s has no build id", path)
	}
	note, err := s.Data()
	if err != nil || len(note) < 16+20 {
		t.Fatalf("build id of %s: %d bytes, %v", path, len(note), err)
	}
	return hex.EncodeToString(note[16:])
}

// A damaged debug file is worth as much as none.
func TestDebugFileDamaged(t *testing.T) {
	t.Parallel()
	program, symbols := bare(t, "calls")
	damaged := program + ".debug"
	copyFile(t, symbols, damaged)
	if err := os.Truncate(damaged, 3000); err != nil {
		t.Fatal(err)
	}
	names := unnamed(t, "calls", symbols)
	p := targets.Start(t, program, "--rounds", "25")
	p.Ready()
	truth, r := observe(t, p)
	got := map[string]uint64{}
	for place, n := range r.counts() {
		got[nameOf(names, place)] = n
	}
	report(t, "calls", differences("calls", truth.Counts, got))
}
