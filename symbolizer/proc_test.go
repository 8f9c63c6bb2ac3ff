package symbolizer

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// target is a running process of testdata/src/target.c.
type target struct {
	t     testing.TB
	pid   int
	stdin io.WriteCloser
	lines *bufio.Scanner
	addrs map[string]uint64 // what it has printed
}

// startTarget runs a command line that ends up executing the target program.
func startTarget(t testing.TB, command ...string) *target {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &target{t: t, pid: cmd.Process.Pid, stdin: stdin, lines: bufio.NewScanner(stdout), addrs: make(map[string]uint64)}
	t.Cleanup(func() {
		stdin.Close()
		cmd.Process.Kill()
		cmd.Wait()
	})
	if !p.ready() {
		stdin.Close()
		cmd.Wait()
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s does not run: %s", cmd, stderr.Bytes())
		}
		t.Skipf("%s does not run here: %s", cmd, stderr.Bytes())
	}
	return p
}

// ready reads addresses up to the line "ready".
func (p *target) ready() bool {
	for p.lines.Scan() {
		name, value, _ := strings.Cut(p.lines.Text(), " ")
		if name == "ready" {
			return true
		}
		if value == "(nil)" {
			p.addrs[name] = 0
			continue
		}
		addr, err := strconv.ParseUint(strings.TrimPrefix(value, "0x"), 16, 64)
		if err != nil {
			p.t.Fatalf("target says %q", p.lines.Text())
		}
		p.addrs[name] = addr
	}
	return false
}

func (p *target) command(format string, args ...any) {
	p.t.Helper()
	fmt.Fprintf(p.stdin, format+"\n", args...)
	if !p.ready() {
		p.t.Fatalf("the target ended at %q", format)
	}
}

func targetProgram(t testing.TB) string {
	return compile(t, "target.c", "-g", "-pthread", "-ldl", "-rdynamic")
}

func TestMapsAndModules(t *testing.T) {
	path := targetProgram(t)
	p := startTarget(t, path)
	maps, err := Maps(p.pid)
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range maps {
		if !m.IsFile() || m.End <= m.Start || m.Deleted || i > 0 && m.Start < maps[i-1].End {
			t.Errorf("mapping %+v", m)
		}
	}
	modules, err := Modules(p.pid)
	if err != nil {
		t.Fatal(err)
	}
	if len(modules) < 3 { // program, libc, loader
		t.Fatalf("modules: %+v", modules)
	}
	for i, m := range modules {
		if m.Main != (i == 0) || len(m.Mappings) == 0 {
			t.Errorf("module %d: %+v", i, m)
		}
		// The very same file.
		mapped, err := ModulePath(p.pid, m.Mappings[0])
		if err != nil {
			t.Fatal(err)
		}
		if !sameFile(mapped, m.Path) {
			t.Errorf("%s is not %s", mapped, m.Path)
		}
	}
	if modules[0].Path != path || modules[0].Name() != filepath.Base(path) {
		t.Errorf("main module is %s, want %s", modules[0].Path, path)
	}
}

// TestModulePathReplaced: the mapped file is found after its name was removed, or
// given to another file.
func TestModulePathReplaced(t *testing.T) {
	original := targetProgram(t)
	id := open(t, original, Options{}).BuildID
	for _, what := range []string{"removed", "replaced", "name says deleted"} {
		t.Run(what, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "prog")
			if what == "name says deleted" {
				path += deletedSuffix
			}
			copyFile(t, original, path)
			p := startTarget(t, path)
			if what != "name says deleted" {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			}
			if what == "replaced" {
				copyFile(t, compile(t, "funcs.c", "-g", "-pie", "-fPIE"), path)
			}
			modules, err := Modules(p.pid)
			if err != nil {
				t.Fatal(err)
			}
			if m := modules[0]; !m.Main || m.Path != strings.TrimSuffix(path, deletedSuffix) || !m.Deleted {
				t.Errorf("main module is %+v", m)
			}
			mapped, err := ModulePath(p.pid, modules[0].Mappings[0])
			if err != nil {
				t.Fatal(err)
			}
			b := open(t, mapped, Options{})
			if b.BuildID != id {
				t.Errorf("%s has build id %s, want %s", mapped, b.BuildID, id)
			}
			symbols := newSymbols(t, p.pid)
			checkResolve(t, symbols, p.addrs["marker"], "marker", true)
		})
	}
}

// TestModulePathDeletedLibrary: a library that is not the executable needs
// map_files.
func TestModulePathDeletedLibrary(t *testing.T) {
	p := startTarget(t, targetProgram(t))
	lib := filepath.Join(t.TempDir(), "libfuncs.so")
	copyFile(t, compile(t, "funcs.c", "-shared", "-fPIC"), lib)
	symbols := newSymbols(t, p.pid)
	p.command("load %s plain", lib)
	if err := os.Remove(lib); err != nil {
		t.Fatal(err)
	}
	maps, err := Maps(p.pid)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(maps, func(m Mapping) bool { return m.Path == lib })
	if i < 0 || !maps[i].Deleted {
		t.Fatalf("the library is not among %+v", maps)
	}
	mapped, err := ModulePath(p.pid, maps[i])
	if errors.Is(err, os.ErrPermission) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(mapped, "/map_files/") {
		t.Errorf("deleted library opened as %s", mapped)
	}
	checkResolve(t, symbols, p.addrs["plain"], "plain", false)
}

// TestMountNamespace: the path means a file that only the target sees.
func TestMountNamespace(t *testing.T) {
	need(t, "unshare")
	original := targetProgram(t)
	hidden := t.TempDir() // where the target sees its program, and we another one
	copyFile(t, compile(t, "funcs.c", "-g", "-pie", "-fPIE"), filepath.Join(hidden, "prog"))
	p := startTarget(t, "unshare", "-m", "sh", "-c",
		fmt.Sprintf("mount -t tmpfs none %[1]s && cp %[2]s %[1]s/prog && exec %[1]s/prog", hidden, original))
	modules, err := Modules(p.pid)
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(hidden, "prog"); modules[0].Path != want || !modules[0].Main {
		t.Fatalf("main module is %+v, want %s", modules[0], want)
	}
	mapped, err := ModulePath(p.pid, modules[0].Mappings[0])
	if err != nil {
		t.Fatal(err)
	}
	if got, want := open(t, mapped, Options{}).BuildID, open(t, original, Options{}).BuildID; got != want {
		t.Errorf("%s has build id %s, want %s", mapped, got, want)
	}
	checkResolve(t, newSymbols(t, p.pid), p.addrs["marker"], "marker", true)
}

// TestChroot: the kernel shows paths from our root, not from the target's.
func TestChroot(t *testing.T) {
	need(t, "chroot")
	static := compile(t, "target.c", "-g", "-static", "-pthread", "-Wno-all", "-w")
	root := t.TempDir()
	copyFile(t, static, filepath.Join(root, "prog"))
	p := startTarget(t, "chroot", root, "/prog")
	modules, err := Modules(p.pid)
	if err != nil {
		t.Fatal(err)
	}
	mapped, err := ModulePath(p.pid, modules[0].Mappings[0])
	if err != nil {
		t.Fatal(err)
	}
	if !sameFile(mapped, filepath.Join(root, "prog")) {
		t.Errorf("%s is not the program in %s", mapped, root)
	}
	checkResolve(t, newSymbols(t, p.pid), p.addrs["marker"], "marker", true)
}

func TestPidNamespace(t *testing.T) {
	need(t, "unshare")
	path := targetProgram(t)
	outer := startTarget(t, "unshare", "-p", "-f", "--kill-child", path)
	children, err := Children(outer.pid)
	if err != nil || len(children) != 1 {
		t.Fatalf("children of unshare: %v, %v", children, err)
	}
	ids, err := NSpid(children[0])
	if err != nil || !slices.Equal(ids, []int{children[0], 1}) {
		t.Errorf("NSpid = %v, %v, want [%d 1]", ids, err, children[0])
	}
	if ids, err := NSpid(os.Getpid()); err != nil || ids[0] != os.Getpid() {
		t.Errorf("NSpid of this process = %v, %v", ids, err)
	}
}

// TestLeaderExited: when the main thread has ended, the process is described by
// the threads that are left.
func TestLeaderExited(t *testing.T) {
	path := targetProgram(t)
	p := startTarget(t, path)
	p.command("leave")
	// The main thread says "ready" before it ends.
	waitUntil(t, "the main thread to end", func() bool {
		fields, err := statFields(p.pid)
		return err == nil && fields[0] == "Z"
	})
	modules, err := Modules(p.pid)
	if err != nil || len(modules) == 0 || modules[0].Path != path || !modules[0].Main {
		t.Fatalf("modules: %+v, %v", modules, err)
	}
	if exe, err := Exe(p.pid); err != nil || exe != path {
		t.Errorf("Exe = %q, %v", exe, err)
	}
	checkResolve(t, newSymbols(t, p.pid), p.addrs["marker"], "marker", true)
}

func TestProcessFacts(t *testing.T) {
	path := targetProgram(t)
	p := startTarget(t, path, "an argument", "")
	if exe, err := Exe(p.pid); err != nil || exe != path {
		t.Errorf("Exe = %q, %v", exe, err)
	}
	if comm, err := Comm(p.pid); err != nil || comm != "prog" {
		t.Errorf("Comm = %q, %v", comm, err)
	}
	if args, err := Cmdline(p.pid); err != nil || !slices.Equal(args, []string{path, "an argument", ""}) {
		t.Errorf("Cmdline = %q, %v", args, err)
	}
	if creds, err := Creds(p.pid); err != nil || creds != (Credentials{os.Getuid(), os.Geteuid(), os.Getgid(), os.Getegid()}) {
		t.Errorf("Creds = %+v, %v", creds, err)
	}
	if tids, err := Threads(p.pid); err != nil || !slices.Equal(tids, []int{p.pid}) {
		t.Errorf("Threads = %v, %v", tids, err)
	}
	if parent, err := Parent(p.pid); err != nil || parent != os.Getpid() {
		t.Errorf("Parent = %d, %v", parent, err)
	}
	if children, err := Children(os.Getpid()); err != nil || !slices.Contains(children, p.pid) {
		t.Errorf("Children = %v, %v, without %d", children, err, p.pid)
	}
	ours, err := StartTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if theirs, err := StartTime(p.pid); err != nil || theirs < ours {
		t.Errorf("the target started at %d, this process at %d, %v", theirs, ours, err)
	}
	if !ProcessExists(p.pid) || ProcessExists(0) || ProcessExists(-1) {
		t.Error("ProcessExists is wrong")
	}
	// A thread is no process.
	tids, err := Threads(os.Getpid())
	if err != nil || len(tids) < 2 {
		t.Fatalf("threads of this process: %v, %v", tids, err)
	}
	for _, tid := range tids {
		if ProcessExists(tid) != (tid == os.Getpid()) {
			t.Errorf("ProcessExists(%d) = %v", tid, ProcessExists(tid))
		}
		if tgid, err := Tgid(tid); err != nil || tgid != os.Getpid() {
			t.Errorf("Tgid(%d) = %d, %v", tid, tgid, err)
		}
	}
}

func TestNoProcess(t *testing.T) {
	cmd := exec.Command("/bin/true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.ProcessState.Pid()
	for name, call := range map[string]func() error{
		"Maps":              func() error { _, err := Maps(pid); return err },
		"Modules":           func() error { _, err := Modules(pid); return err },
		"ModulePath":        func() error { _, err := ModulePath(pid, Mapping{Inode: 1, Path: "/x"}); return err },
		"Exe":               func() error { _, err := Exe(pid); return err },
		"NSpid":             func() error { _, err := NSpid(pid); return err },
		"Tgid":              func() error { _, err := Tgid(pid); return err },
		"Comm":              func() error { _, err := Comm(pid); return err },
		"Cmdline":           func() error { _, err := Cmdline(pid); return err },
		"Creds":             func() error { _, err := Creds(pid); return err },
		"StartTime":         func() error { _, err := StartTime(pid); return err },
		"Parent":            func() error { _, err := Parent(pid); return err },
		"Threads":           func() error { _, err := Threads(pid); return err },
		"Children":          func() error { _, err := Children(pid); return err },
		"Cgroups":           func() error { _, err := Cgroups(pid); return err },
		"NewProcessSymbols": func() error { _, err := NewProcessSymbols(pid); return err },
	} {
		if err := call(); !errors.Is(err, ErrNoProcess) || !strings.Contains(err.Error(), strconv.Itoa(pid)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	long := filepath.Join(dir, "sbx-a-rather-long-name") // beyond what comm holds
	copyFile(t, targetProgram(t), long)
	p := startTarget(t, long)
	for pattern, want := range map[string]bool{
		"sbx-a-rather-long-name": true,
		"sbx-a-rather*":          true,
		"sbx-a-rather-lo":        true, // comm
		"sbx-a-rather-long-nam":  false,
		"sbx-[bc]*":              false,
		"*rather*":               true,
		long:                     false,
	} {
		pids, err := FindByName(pattern)
		if err != nil || slices.Contains(pids, p.pid) != want {
			t.Errorf("FindByName(%q) = %v, %v, want %d: %v", pattern, pids, err, p.pid, want)
		}
		if slices.Contains(pids, os.Getpid()) {
			t.Errorf("FindByName(%q) finds this process", pattern)
		}
	}
	if pids, err := FindByName("[a"); err == nil || pids != nil {
		t.Errorf("a bad pattern gives %v, %v", pids, err)
	}

	groups, err := Cgroups(p.pid)
	if err != nil || len(groups) == 0 {
		t.Skipf("no control groups: %v", err)
	}
	for _, g := range groups {
		for _, name := range []string{g.Path, filepath.Dir(g.Path), "/"} {
			pids, err := FindByCgroup(name)
			if err != nil || !slices.Contains(pids, p.pid) {
				t.Errorf("FindByCgroup(%q) = %v, %v, without %d", name, pids, err, p.pid)
			}
		}
		if pids, err := FindByCgroup(g.Path + "/no-such-group"); err != nil || len(pids) != 0 {
			t.Errorf("a group that does not exist has %v, %v", pids, err)
		}
	}
}

func TestCgroupPaths(t *testing.T) {
	groups := parseCgroups("12:cpu,cpuacct:/a/b\n1:name=systemd:/a/b/c\n0::/user.slice/x:y.scope\nbroken\n5:x:relative\n")
	want := []Cgroup{{"cpu,cpuacct", "/a/b"}, {"name=systemd", "/a/b/c"}, {"", "/user.slice/x:y.scope"}}
	if !slices.Equal(groups, want) {
		t.Fatalf("groups are %+v, want %+v", groups, want)
	}
	for _, c := range []struct {
		group Cgroup
		name  string
		want  bool
	}{
		{want[0], "/a/b", true}, {want[0], "/a", true}, {want[0], "a/b/", true}, {want[0], "/a/bc", false}, {want[0], "/a/b/c", false},
		{want[0], "/sys/fs/cgroup/cpu,cpuacct/a/b", true}, {want[0], "/sys/fs/cgroup/memory/a/b", false}, {want[0], "/sys/fs/cgroup/a/b", false},
		{want[1], "/sys/fs/cgroup/systemd/a/b/c", true},
		{want[2], "/sys/fs/cgroup/user.slice", true}, {want[2], "/sys/fs/cgroup/unified/user.slice", true}, {want[2], "/sys/fs/cgroup", true}, {want[2], "/user", false},
	} {
		if got := c.group.contains(c.name); got != c.want {
			t.Errorf("%+v contains(%q) = %v", c.group, c.name, got)
		}
	}
}

func TestParseMaps(t *testing.T) {
	const text = `55d0c8a00000-55d0c8a28000 r--p 00000000 fe:01 1234                       /usr/bin/prog
55d0c8a28000-55d0c8a80000 r-xp 00028000 fe:01 1234                       /usr/bin/prog
7f0000000000-7f0000001000 r-xp 00000000 103:1a 99 /tmp/with space (deleted)
7f0000002000-7f0000003000 rwxp 00000000 00:00 0 
7f0000004000-7f0000005000 r-xs 00001000 00:05 7                          /new\012line
7ffe4d9f2000-7ffe4d9f4000 r-xp 00000000 00:00 0                          [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
`
	maps, err := ParseMaps(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	want := []Mapping{
		{Start: 0x55d0c8a28000, End: 0x55d0c8a80000, Offset: 0x28000, Dev: mkdev(0xfe, 1), Inode: 1234, Path: "/usr/bin/prog"},
		{Start: 0x7f0000000000, End: 0x7f0000001000, Dev: mkdev(0x103, 0x1a), Inode: 99, Path: "/tmp/with space", Deleted: true},
		{Start: 0x7f0000002000, End: 0x7f0000003000},
		{Start: 0x7f0000004000, End: 0x7f0000005000, Offset: 0x1000, Dev: mkdev(0, 5), Inode: 7, Path: "/new\nline"},
		{Start: 0x7ffe4d9f2000, End: 0x7ffe4d9f4000, Path: "[vdso]"},
		{Start: 0xffffffffff600000, End: 0xffffffffff601000, Path: "[vsyscall]"},
	}
	if !slices.Equal(maps, want) {
		t.Errorf("maps are\n%+v, want\n%+v", maps, want)
	}
	if off := maps[0].FileOffset(0x55d0c8a28010); off != 0x28010 {
		t.Errorf("FileOffset = %#x", off)
	}
	for _, bad := range []string{
		"x", "1000-2000", "2000-1000 r-xp 0 0:0 0 /x", "1000-1000 r-xp 0 0:0 0 /x", "1000-2000 r-x 0 0:0 0 /x", "1000-2000 r-xp 0 00 0 /x",
		"1000-2000 r-xp z 0:0 0 /x", "1000-2000 r-xp 0 0:0 -1 /x", "1000-11112222333344445 r-xp 0 0:0 0 /x",
		"1000-2000 r-xp 0 0:0 0 " + strings.Repeat("a", 70000),
	} {
		if maps, err := ParseMaps(strings.NewReader(bad)); !errors.Is(err, ErrMalformed) || maps != nil {
			t.Errorf("%.40q gives %v, %v", bad, maps, err)
		}
	}
}

func mkdev(major, minor uint64) uint64 { return major<<8 | minor }

// waitUntil waits for a condition that another process brings about.
func waitUntil(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !condition(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		syscall.Select(0, nil, nil, nil, &syscall.Timeval{Usec: 1000})
	}
}

func TestTaskState(t *testing.T) {
	p := startTarget(t, targetProgram(t))
	if err := syscall.Kill(p.pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the process to stop", func() bool {
		task, err := TaskState(p.pid)
		return err == nil && task == Task{State: 'T'}
	})
	if comm, err := Comm(2); err == nil && comm == "kthreadd" {
		if task, err := TaskState(2); err != nil || !task.Kernel {
			t.Errorf("kthreadd: %+v, %v: want a thread of the kernel", task, err)
		}
	}
	if _, err := TaskState(1 << 30); !errors.Is(err, ErrNoProcess) {
		t.Errorf("no such process: %v", err)
	}
}
