package main

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/sbxtrace/sbxtrace/vmtests/guest"
)

// tree is the content of a machine's root file system before it is packed.
type tree struct {
	nodes map[string]node // by absolute path, without those of plain directories
}

// node is one file: a symbolic link, some bytes, or a file of the host.
type node struct {
	link    string
	content []byte
	host    string
}

func newTree() *tree { return &tree{nodes: make(map[string]node)} }

// add copies a file or a directory of the host, symbolic links as such. Names
// that leave matches are left out; nil leaves out nothing.
func (t *tree) add(at, host string, leave *regexp.Regexp) error {
	st, err := os.Stat(host)
	if err != nil {
		return fmt.Errorf("add %s: %w", at, err)
	}
	if !st.IsDir() {
		t.nodes[path.Clean(at)] = node{host: host}
		return nil
	}
	return filepath.WalkDir(host, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("add %s: %w", at, err)
		}
		if leave != nil && leave.MatchString(d.Name()) {
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		rel, err := filepath.Rel(host, p)
		if err != nil {
			return fmt.Errorf("add %s: %w", at, err)
		}
		name := path.Join(at, filepath.ToSlash(rel))
		switch {
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			if err != nil {
				return fmt.Errorf("add %s: %w", at, err)
			}
			t.nodes[name] = node{link: target}
		case d.Type().IsRegular():
			t.nodes[name] = node{host: p}
		}
		return nil
	})
}

// addLibraries adds the shared libraries, and the loader, that the executables
// in the tree need, at the paths where the host has them.
func (t *tree) addLibraries(ctx context.Context) error {
	var dynamic []string
	for _, n := range t.nodes {
		if n.host != "" && isDynamic(n.host) {
			dynamic = append(dynamic, n.host)
		}
	}
	slices.Sort(dynamic)
	for _, host := range dynamic {
		out, err := exec.CommandContext(ctx, "ldd", host).Output()
		if err != nil {
			return fmt.Errorf("list libraries of %s: %w", host, commandError(err))
		}
		libs, err := parseLdd(out)
		if err != nil {
			return fmt.Errorf("list libraries of %s: %w", host, err)
		}
		for _, lib := range libs {
			if _, ok := t.nodes[lib]; !ok {
				t.nodes[lib] = node{host: lib}
			}
		}
	}
	return nil
}

// isDynamic reports whether a file is an ELF file that needs shared libraries.
func isDynamic(path string) bool {
	f, err := elf.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	libs, err := f.ImportedLibraries()
	return err == nil && len(libs) > 0
}

// parseLdd takes the paths out of lines such as "libc.so.6 => /lib/libc.so.6
// (0x7f…)" and "/lib64/ld-linux-x86-64.so.2 (0x7f…)".
func parseLdd(out []byte) ([]string, error) {
	var libs []string
	for line := range strings.Lines(string(out)) {
		name, found, arrow := strings.Cut(strings.TrimSpace(line), " => ")
		if !arrow {
			found = name
		}
		lib, _, _ := strings.Cut(found, " (")
		switch {
		case strings.HasPrefix(lib, "/"):
			libs = append(libs, lib)
		case arrow:
			return nil, fmt.Errorf("%s: %s", name, found)
		}
	}
	return libs, nil
}

// addBusybox links every applet of a busybox in the tree beside it, where no
// file of that name is.
func (t *tree) addBusybox(ctx context.Context) error {
	const at = "/bin/busybox"
	n, ok := t.nodes[at]
	if !ok {
		return nil
	}
	out, err := exec.CommandContext(ctx, n.host, "--list").Output()
	if err != nil {
		return fmt.Errorf("list applets of %s: %w", n.host, commandError(err))
	}
	for _, applet := range strings.Fields(string(out)) {
		name := path.Join("/bin", applet)
		if _, ok := t.nodes[name]; !ok && simpleName.MatchString(applet) {
			t.nodes[name] = node{link: "busybox"}
		}
	}
	return nil
}

// write packs the tree for the kernel to unpack.
func (t *tree) write(name string) (err error) {
	f, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("create initramfs: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	c := newCPIO(f)
	dirs := map[string]bool{"/": true}
	var mkdir func(dir string)
	mkdir = func(dir string) {
		if !dirs[dir] {
			mkdir(path.Dir(dir))
			dirs[dir] = true
			c.dir(dir[1:], 0o755)
		}
	}
	mkdir("/dev")
	mkdir("/root")
	// Init's standard streams, before it has mounted a /dev with more in it.
	c.device("dev/console", 0o600, 5, 1)
	names := make([]string, 0, len(t.nodes))
	for n := range t.nodes {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, name := range names {
		mkdir(path.Dir(name))
		switch n := t.nodes[name]; {
		case n.link != "":
			c.symlink(name[1:], n.link)
		case n.host != "":
			if err := c.file(name[1:], n.host); err != nil {
				return err
			}
		default:
			c.bytes(name[1:], modeRegular|0o644, n.content)
		}
	}
	if err := c.close(); err != nil {
		return fmt.Errorf("write initramfs: %w", err)
	}
	return nil
}

// builder makes what goes into the machines, in a directory of its own.
type builder struct {
	dir string // absolute
}

// goBuild builds a package statically and returns the path of the result.
func (b *builder) goBuild(ctx context.Context, name string, args ...string) (string, error) {
	out := filepath.Join(b.dir, name)
	cmd := exec.CommandContext(ctx, "go", append([]string{args[0], "-o", out}, args[1:]...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, bytes.TrimSpace(text))
	}
	if _, err := os.Stat(out); err != nil {
		return "", fmt.Errorf("go %s left no binary: has the package tests?", strings.Join(args, " "))
	}
	return out, nil
}

// base builds what all kernels share: init, the files of the manifest, all test
// binaries and the data they read.
func (b *builder) base(ctx context.Context, m *manifest, tests []test) (*tree, error) {
	if err := os.RemoveAll(b.dir); err != nil {
		return nil, fmt.Errorf("clear build directory: %w", err)
	}
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make build directory: %w", err)
	}
	t := newTree()
	initBin, err := b.goBuild(ctx, "init", "build", "./vmtests/init")
	if err != nil {
		return nil, err
	}
	t.nodes["/init"] = node{host: initBin}
	for i, f := range m.Files {
		host := f.Copy
		switch {
		case f.Go != "":
			host, err = b.goBuild(ctx, fmt.Sprintf("file%d", i), "build", f.Go)
		case len(f.Run) > 0:
			host, err = b.run(ctx, fmt.Sprintf("file%d", i), f.Run)
		}
		if err != nil {
			return nil, err
		}
		if err := t.add(f.Path, host, f.leave); err != nil {
			return nil, err
		}
	}
	for _, x := range tests {
		if _, ok := t.nodes[binaryPath(x)]; ok {
			continue // another selection of the same binary
		}
		bin, err := b.goBuild(ctx, filepath.Base(binaryPath(x)), "test", "-c", x.Package)
		if err != nil {
			return nil, err
		}
		t.nodes[binaryPath(x)] = node{host: bin}
		data := filepath.Join(x.Package, "testdata")
		if _, err := os.Stat(data); err == nil {
			if err := t.add(path.Join(workDir(x), "testdata"), data, nil); err != nil {
				return nil, err
			}
		} else {
			t.nodes[path.Join(workDir(x), ".keep")] = node{}
		}
	}
	for name, text := range map[string]string{
		"/etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n",
		"/etc/group":  "root:x:0:\nnogroup:x:65534:\n",
		"/etc/hosts":  "127.0.0.1 localhost\n",
	} {
		t.nodes[name] = node{content: []byte(text)}
	}
	return t, errors.Join(t.addBusybox(ctx), t.addLibraries(ctx))
}

// run executes a command of the manifest and returns the directory it filled.
func (b *builder) run(ctx context.Context, name string, command []string) (string, error) {
	out := filepath.Join(b.dir, name)
	if err := os.Mkdir(out, 0o755); err != nil {
		return "", fmt.Errorf("make directory for %v: %w", command, err)
	}
	args := make([]string, len(command))
	for i, arg := range command {
		args[i] = strings.ReplaceAll(arg, "$OUT", out)
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("run %s: %w\n%s", strings.Join(command, " "), err, bytes.TrimSpace(text))
	}
	return out, nil
}

// workDir is where a package's tests run in the machine: they find testdata
// there as they do on the host.
func workDir(t test) string { return path.Join("/src", path.Clean(t.Package)) }

func binaryPath(t test) string {
	return "/tests/" + strings.ReplaceAll(path.Clean(t.Package), "/", "-") + ".test"
}

// config is what init is told to do on a kernel.
func config(k kernel, env []string, tests []test) guest.Config {
	cfg := guest.Config{Env: []string{
		"PATH=/bin:/sbin:/usr/bin:/usr/sbin", "HOME=/root", "TMPDIR=/tmp", "LANG=C.UTF-8",
		"CI=true", "SBXTRACE_VM=" + k.Name,
	}}
	cfg.Env = append(cfg.Env, env...)
	for _, t := range tests {
		args := []string{"-test.v=test2json", fmt.Sprintf("-test.timeout=%ds", t.Seconds)}
		if len(t.Run) > 0 {
			args = append(args, "-test.run="+strings.Join(t.Run, "|"))
		}
		if t.Skip != "" {
			args = append(args, "-test.skip="+t.Skip)
		}
		cfg.Jobs = append(cfg.Jobs, guest.Job{
			Name: t.Name, Path: binaryPath(t), Args: args, Dir: workDir(t), Env: t.Env,
			// The binary's own limit comes first: it tells what hangs.
			Seconds: t.Seconds + 15,
		})
	}
	return cfg
}

// forKernel adds to the shared tree what is for one kernel only.
func (t *tree) forKernel(k kernel, env []string, tests []test) error {
	text, err := json.MarshalIndent(config(k, env, tests), "", "  ")
	if err != nil {
		return fmt.Errorf("encode configuration: %w", err)
	}
	t.nodes[guest.ConfigPath] = node{content: text}
	return nil
}
