package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sbxtrace/sbxtrace/internal/testsum"
	"github.com/sbxtrace/sbxtrace/vmtests/guest"
)

func TestParseMirrors(t *testing.T) {
	for _, tc := range []struct {
		name, in string
		want     mirrors
		err      error
	}{
		{
			"both", "Packages bookworm main http://m/debian/\nDEP-11 bookworm main http://x/\nPackages bookworm-security main http://m/sec/\n",
			mirrors{"http://m/debian/", "http://m/sec/"}, nil,
		},
		{"no security", "Packages trixie main http://m/debian/\n", mirrors{"http://m/debian/", "http://m/debian-security/"}, nil},
		{"others come first", "Packages bookworm stable http://d/\nPackages bookworm-pgdg main http://p/\nPackages bookworm main http://m/\n", mirrors{"http://m/", "http://m-security/"}, nil},
		{"none", "Packages jammy main http://u/\n", mirrors{}, errNoArchive},
		{"empty", "", mirrors{}, errNoArchive},
	} {
		if got, err := parseMirrors([]byte(tc.in)); got != tc.want || err != tc.err {
			t.Errorf("%s: %v, %v, want %v, %v", tc.name, got, err, tc.want, tc.err)
		}
	}
}

func TestMadisonVersions(t *testing.T) {
	in := "linux-image-x | 6.1.2-1 | http://m bookworm/main amd64 Packages\nnonsense\nlinux-image-x | 6.1.1-1 | http://m\n"
	if got := slices.Collect(madisonVersions([]byte(in))); !slices.Equal(got, []string{"6.1.2-1", "6.1.1-1"}) {
		t.Errorf("versions = %q", got)
	}
}

func TestParseLdd(t *testing.T) {
	got, err := parseLdd([]byte("\tlinux-vdso.so.1 (0x7ff)\n\tlibc.so.6 => /lib/libc.so.6 (0x7f)\n\t/lib64/ld-linux-x86-64.so.2 (0x7f)\n\tstatically linked\n"))
	if err != nil || !slices.Equal(got, []string{"/lib/libc.so.6", "/lib64/ld-linux-x86-64.so.2"}) {
		t.Errorf("parseLdd = %q, %v", got, err)
	}
	if _, err := parseLdd([]byte("\tlibx.so => not found\n")); err == nil || !strings.Contains(err.Error(), "libx.so: not found") {
		t.Errorf("missing library: %v", err)
	}
}

// The archive is unpacked by cpio(1), which knows nothing of how it was written.
func TestInitramfs(t *testing.T) {
	if _, err := exec.LookPath("cpio"); err != nil {
		t.Skip("needs cpio")
	}
	dir := t.TempDir()
	source := filepath.Join(dir, "source")
	if err := os.WriteFile(source, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	tr := newTree()
	tr.nodes["/a/b/c.txt"] = node{content: []byte("hello")}
	tr.nodes["/empty"] = node{}
	tr.nodes["/bin/run"] = node{host: source}
	tr.nodes["/bin/sh"] = node{link: "run"}
	archive := filepath.Join(dir, "a.cpio")
	if err := tr.write(archive); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// Without the device, which only root could create.
	cmd := exec.Command("cpio", "--extract", "--quiet", "--make-directories", "--nonmatching", "dev/console")
	cmd.Stdin, cmd.Dir = f, filepath.Join(dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cpio: %v\n%s", err, out)
	}
	for name, want := range map[string]string{"a/b/c.txt": "hello", "empty": "", "bin/run": "#!/bin/sh\n", "bin/sh": "#!/bin/sh\n"} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%s = %q, %v, want %q", name, got, err, want)
		}
	}
	if st, err := os.Stat(filepath.Join(dir, "bin/run")); err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("bin/run: %v, %v, want mode 755", st, err)
	}
}

func TestLibrariesOfThisSystem(t *testing.T) {
	tr := newTree()
	tr.nodes["/bin/sleep"] = node{host: "/bin/sleep"}
	if err := tr.addLibraries(t.Context()); err != nil {
		t.Fatal(err)
	}
	found := false
	for name := range tr.nodes {
		found = found || strings.Contains(name, "libc.so")
	}
	if !found {
		t.Errorf("no C library among %v", tr.nodes)
	}
}

func TestFindTrouble(t *testing.T) {
	for console, want := range map[string]string{
		"[1.0] fine\n[1.1] done\n":                                       "",
		"[1.0] fine\n[1.1] BUG: kernel NULL pointer\n[1.2] more\n":       "[1.1] BUG: kernel NULL pointer\n[1.2] more\n",
		"[1.1] Kernel panic - not syncing: Attempted to kill init!\n":    "[1.1] Kernel panic - not syncing: Attempted to kill init!\n",
		"[0.1] WARNING: CPU: 0 PID: 1 at kernel/x.c:1\n":                 "[0.1] WARNING: CPU: 0 PID: 1 at kernel/x.c:1\n",
		"[0.1] acpi PNP0A08:00: fail to add MMCONFIG information\n[2]\n": "",
	} {
		if got := findTrouble(console); got != want {
			t.Errorf("findTrouble(%q) = %q, want %q", console, got, want)
		}
	}
}

func TestReplaceBetween(t *testing.T) {
	got, err := replaceBetween("a\n"+docsBegin+"old\n"+docsEnd+"b\n", "new\n")
	if want := "a\n" + docsBegin + "new\n" + docsEnd + "b\n"; err != nil || got != want {
		t.Errorf("replaceBetween = %q, %v", got, err)
	}
	if _, err := replaceBetween("no marks", "x"); err == nil {
		t.Error("a document without marks was accepted")
	}
	// The document of the repository has them.
	text, err := os.ReadFile(filepath.Join("..", "docs", "kernels.md"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := replaceBetween(string(text), ""); err != nil {
		t.Error(err)
	}
}

// TestSession plays the ways in which a machine can end.
func TestSession(t *testing.T) {
	const pass = "\x16=== RUN   TestX\n\x16--- PASS: TestX (0.01s)\n\x16PASS\n"
	const half = "\x16=== RUN   TestX\n"
	boot := guest.Event{Kind: guest.KindBoot, Kernel: "6.1.0-x", BTF: true, CPUs: cpus}
	output := func(text string) guest.Event {
		return guest.Event{Kind: guest.KindOutput, Job: "a", Text: text}
	}
	end := guest.Event{Kind: guest.KindEnd, Job: "a"}
	done := guest.Event{Kind: guest.KindDone}
	for _, tc := range []struct {
		name    string
		events  []guest.Event
		console string
		err     error
		want    testsum.Counts
		failed  string // in the names of the failures
	}{
		{name: "good", events: []guest.Event{boot, output(pass), end, done}, want: testsum.Counts{Passed: 1}},
		{name: "never boots", err: context.DeadlineExceeded, want: testsum.Counts{Failed: 1}, failed: "machine"},
		{name: "wrong kernel", events: []guest.Event{{Kind: guest.KindBoot, Kernel: "5", BTF: true, CPUs: cpus}, output(pass), end, done},
			want: testsum.Counts{Passed: 1, Failed: 1}, failed: "kernel"},
		{name: "no types, one processor", events: []guest.Event{{Kind: guest.KindBoot, Kernel: "6.1.0-x", CPUs: 1}, output(pass), end, done},
			want: testsum.Counts{Passed: 1, Failed: 2}, failed: "kernel types"},
		{name: "test never starts", events: []guest.Event{boot, done}, want: testsum.Counts{Failed: 1}, failed: "machine"},
		{name: "too few tests", events: []guest.Event{boot, output("testing: warning: no tests to run\n\x16PASS\n"), end, done},
			want: testsum.Counts{Failed: 2}, failed: "a (number of tests)"},
		{name: "exit code alone", events: []guest.Event{boot, output(pass), {Kind: guest.KindEnd, Job: "a", Code: 3, Text: "exit status 3"}, done},
			want: testsum.Counts{Passed: 1, Failed: 1}, failed: modulePath + "/a (outside of its tests)"},
		{name: "killed in a test", events: []guest.Event{boot, output(half), {Kind: guest.KindEnd, Job: "a", Code: 137, Text: "killed"}, done},
			want: testsum.Counts{Failed: 2}, failed: modulePath + "/a.TestX (did not finish)"},
		{name: "machine dies in a test", events: []guest.Event{boot, output(half)}, console: "[9.9] Kernel panic - not syncing: oops\n",
			want: testsum.Counts{Failed: 4}, failed: "kernel complaint"},
		{name: "kernel complains", events: []guest.Event{boot, output(pass), end, done}, console: "[9.9] WARNING: CPU: 0 PID: 9\n",
			want: testsum.Counts{Passed: 1, Failed: 1}, failed: "kernel complaint"},
		{name: "another test ends", events: []guest.Event{boot, {Kind: guest.KindEnd, Job: "b"}, output(pass), end, done},
			want: testsum.Counts{Passed: 1, Failed: 1}, failed: "b"},
		{name: "init fails", events: []guest.Event{boot, {Kind: guest.KindError, Text: "no"}}, want: testsum.Counts{Failed: 2}, failed: "init"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := &machine{dir: t.TempDir()}
			if err := os.WriteFile(m.consoleLog(), []byte(tc.console), 0o644); err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			s := &session{
				ctx: t.Context(), out: &out, c: testsum.NewCollector(&out, "vm-6.1", testsum.SkipList{}, true),
				tests: []test{{Name: "a", Package: "./a", MinPass: map[string]int{"6.1": 1}}},
				image: image{release: "6.1.0-x"}, name: "6.1",
			}
			for _, ev := range tc.events {
				s.on(ev)
			}
			s.close(m, tc.err)
			g := s.c.Close()
			if g.Counts != tc.want {
				t.Errorf("counts = %v, want %v\n%s", g.Counts, tc.want, out.String())
			}
			if tc.failed != "" && !slices.Contains(g.Failures, tc.failed) {
				t.Errorf("failures = %q, want %q among them", g.Failures, tc.failed)
			}
		})
	}
}
