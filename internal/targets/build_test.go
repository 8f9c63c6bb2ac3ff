package targets

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// ownCache gives the test a build cache of its own.
func ownCache(t *testing.T) (dir string) {
	t.Helper()
	t.Setenv("SBXTRACE_TARGETS", "")
	t.Setenv("TMPDIR", t.TempDir())
	dir, err := cacheDir()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// builds lists the finished builds in a cache, and fails on unfinished ones.
func builds(t *testing.T, cache string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(cache)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if entry.IsDir() {
			names = append(names, entry.Name())
		}
		if ok, _ := filepath.Match("build-*", entry.Name()); ok {
			t.Errorf("left behind: %s", entry.Name())
		}
	}
	return names
}

func TestBuildsOnce(t *testing.T) {
	cache := ownCache(t)
	const callers = 6
	var paths [callers]string
	var built [callers]time.Time
	var errs [callers]error
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			if paths[i], errs[i] = cached("calls", variant{}); errs[i] != nil {
				return
			}
			info, err := os.Stat(paths[i])
			if err != nil {
				errs[i] = err
				return
			}
			built[i] = info.ModTime()
		})
	}
	wg.Wait()
	if err := errs[0]; errors.Is(err, errNoCompiler) {
		t.Skip(err)
	}
	for i := range callers {
		if errs[i] != nil {
			t.Fatal(errs[i])
		}
		if paths[i] != paths[0] || !built[i].Equal(built[0]) {
			t.Errorf("caller %d got %s of %v, caller 0 %s of %v", i, paths[i], built[i], paths[0], built[0])
		}
	}
	if list := builds(t, cache); len(list) != 1 {
		t.Errorf("builds %v, want one", list)
	}
}

func TestCacheKey(t *testing.T) {
	root := t.TempDir()
	write := func(path, text string) {
		t.Helper()
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	spec, v, tool := target{}, variant{}, compiler{path: "/cc", version: "1"}
	seen := map[string]string{}
	key := func(what string, isNew bool) {
		t.Helper()
		k, err := cacheKey(root, "prog", spec, v, tool)
		if err != nil {
			t.Fatal(err)
		}
		if before, found := seen[k]; found == isNew {
			t.Errorf("%s: key %s is that of %q", what, k, before)
		}
		seen[k] = what
	}
	write("prog/prog.c", "int main;")
	write("include/truth.h", "#define A")
	key("first", true)
	key("unchanged", false)
	write("other/other.c", "another target")
	key("another target", false)
	write("prog/prog.c", "int main();")
	key("source", true)
	write("include/truth.h", "#define B")
	key("header", true)
	write("prog/more.c", "")
	key("new file", true)
	v.flags = []string{"-Da"}
	key("variant", true)
	spec.flags = []string{"-Db"}
	key("target's flags", true)
	tool.version = "2"
	key("compiler", true)
}

func TestPrune(t *testing.T) {
	cache := t.TempDir()
	now := time.Now()
	for name, age := range map[string]time.Duration{"old": cacheAge + time.Hour, "recent": cacheAge - time.Hour} {
		dir := filepath.Join(cache, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(dir, now.Add(-age), now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	lockFile := filepath.Join(cache, "old.lock")
	if err := os.WriteFile(lockFile, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(lockFile, time.Unix(0, 0), time.Unix(0, 0)); err != nil {
		t.Fatal(err)
	}
	prune(cache, now)
	for name, kept := range map[string]bool{"old": false, "recent": true, "old.lock": true} {
		if _, err := os.Stat(filepath.Join(cache, name)); (err == nil) != kept {
			t.Errorf("%s: kept %v, want %v", name, err == nil, kept)
		}
	}
}

func TestCacheDirOfOthers(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	name := filepath.Join(tmp, fmt.Sprintf("sbxtrace-targets-%d", os.Geteuid()))
	if err := os.Symlink(t.TempDir(), name); err != nil {
		t.Fatal(err)
	}
	if dir, err := cacheDir(); err == nil {
		t.Errorf("accepted a link, as %s", dir)
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(name, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, 0o777); err != nil {
		t.Fatal(err)
	}
	if dir, err := cacheDir(); err == nil {
		t.Errorf("accepted a directory that all can write, as %s", dir)
	}
}

func TestSkips(t *testing.T) {
	_, missing := findCompiler("--version", "sbxtrace-no-such-compiler")
	if !errors.Is(missing, errNoCompiler) {
		t.Fatalf("error %v, want %v", missing, errNoCompiler)
	}
	for _, test := range []struct {
		err  error
		ci   string
		want bool
	}{
		{missing, "", true},
		{missing, "true", false},
		{fmt.Errorf("cc: %w", errUnsupported), "true", true},
		{errors.New("syntax error"), "", false},
	} {
		t.Setenv("CI", test.ci)
		if got := skips(test.err); got != test.want {
			t.Errorf("CI=%q, %v: skips is %v, want %v", test.ci, test.err, got, test.want)
		}
	}
}

func TestUnsupported(t *testing.T) {
	for _, test := range []struct {
		name    string
		options []Option
		ok      bool
	}{
		{"calls", []Option{Static(), NoPIE(), Clang()}, true},
		{"calls", []Option{PIE()}, false},
		{"dlopen", []Option{Static()}, false},
		{"ifunc", []Option{Musl()}, false},
		{"cxx", []Option{Musl()}, false},
		{"rustcalls", []Option{Clang()}, false},
		{"gocalls", []Option{PIE(), Strip()}, true},
		{"gocalls", []Option{NoPIE()}, false},
		{"gocalls", []Option{SplitDebug()}, false},
	} {
		err := registry[test.name].check(newVariant(test.options))
		if test.ok && err != nil || !test.ok && !errors.Is(err, errUnsupported) {
			t.Errorf("%s %v: %v", test.name, newVariant(test.options), err)
		}
	}
	if _, err := cached("no-such-target", variant{}); err == nil || skips(err) {
		t.Errorf("an unknown target gives %v", err)
	}
}

// TestVariantFiles checks what the options do to the file.
func TestVariantFiles(t *testing.T) {
	t.Setenv("SBXTRACE_TARGETS", "") // static ones may stand in for others there
	for _, test := range []struct {
		name    string
		target  string
		options []Option
		kind    elf.Type
		interp  bool
		symbols bool
		section string // that must be there
	}{
		{"default", "calls", nil, elf.ET_DYN, true, true, ".debug_info"},
		{"nopie", "calls", []Option{NoPIE()}, elf.ET_EXEC, true, true, ".debug_info"},
		{"static", "calls", []Option{Static()}, elf.ET_DYN, false, true, ".debug_info"},
		{"static-nopie", "calls", []Option{Static(), NoPIE()}, elf.ET_EXEC, false, true, ".debug_info"},
		{"musl", "calls", []Option{Musl(), Static()}, elf.ET_EXEC, false, true, ".debug_info"},
		{"strip", "calls", []Option{Strip()}, elf.ET_DYN, true, false, ".eh_frame"},
		{"split", "calls", []Option{SplitDebug()}, elf.ET_DYN, true, false, ".gnu_debuglink"},
		{"mini", "calls", []Option{MiniDebug()}, elf.ET_DYN, true, false, ".gnu_debugdata"},
		{"c++ static", "cxx", []Option{Static()}, elf.ET_DYN, false, true, ".debug_info"},
		{"go", "gocalls", nil, elf.ET_EXEC, false, true, ".gopclntab"},
		{"go strip", "gocalls", []Option{Strip()}, elf.ET_EXEC, false, false, ".gopclntab"},
		{"go pie", "gocalls", []Option{PIE()}, elf.ET_DYN, true, true, ""},
		{"rust static", "rustcalls", []Option{Static()}, elf.ET_DYN, false, true, ".debug_info"},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := Build(t, test.target, test.options...)
			file, err := elf.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			static, err := isStatic(path)
			if err != nil {
				t.Fatal(err)
			}
			if file.Type != test.kind || static == test.interp {
				t.Errorf("type %v, static %v", file.Type, static)
			}
			if symbols := file.Section(".symtab") != nil; symbols != test.symbols {
				t.Errorf("symbol table: %v", symbols)
			}
			if test.section != "" && file.Section(test.section) == nil {
				t.Errorf("no section %s", test.section)
			}
		})
	}
}

func TestPrebuild(t *testing.T) {
	t.Setenv("SBXTRACE_TARGETS", "")
	dir := t.TempDir()
	list, err := Prebuild(dir, "calls", "libcaller", "gocalls")
	if list == nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Skip(err) // a toolchain is missing
	}
	for _, entry := range list {
		if entry.Name == "gocalls" && len(entry.Libs) != 0 || entry.Name == "calls" && len(entry.Libs) < 2 {
			t.Errorf("%s %s needs %v", entry.Name, entry.Variant, entry.Libs)
		}
		if entry.Name == "libcaller" && (len(entry.Libs) < 2 || len(entry.Files) != 2) {
			t.Errorf("%s %s: libraries %v, files %v", entry.Name, entry.Variant, entry.Libs, entry.Files)
		}
		for _, lib := range entry.Libs {
			if _, err := os.Stat(lib); err != nil {
				t.Error(err)
			}
		}
	}
	// again: over what is there
	if _, err := Prebuild(dir, "calls", "libcaller", "gocalls"); err != nil {
		t.Fatal(err)
	}

	t.Setenv("SBXTRACE_TARGETS", dir)
	for _, test := range []struct {
		name    string
		options []Option
		want    string // "" for none
	}{
		{"calls", nil, "default/calls"},
		{"calls", []Option{OptLevel("0")}, "O0/calls"},
		{"calls", []Option{Clang()}, ""},
		{"libcaller", nil, "default/libcaller"},
		{"gocalls", []Option{Strip()}, "strip/gocalls"},
		{"recurse", nil, ""},
	} {
		path, err := prebuilt(dir, test.name, newVariant(test.options))
		if (err != nil) != (test.want == "") {
			t.Errorf("%s %v: %v", test.name, newVariant(test.options), err)
			continue
		}
		if test.want == "" {
			continue
		}
		if path != filepath.Join(dir, test.want) {
			t.Errorf("%s %v is %s, want %s", test.name, newVariant(test.options), path, test.want)
		}
		if truth := Run(t, Build(t, test.name, test.options...)); len(truth.Counts) == 0 {
			t.Errorf("%s: no truth", path)
		}
	}
}
