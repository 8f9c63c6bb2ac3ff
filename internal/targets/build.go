package targets

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// errNoCompiler says that the machine lacks what a variant needs. Tests skip on
// it, unless they run in CI, where everything must be there.
var errNoCompiler = errors.New("toolchain missing")

// errUnsupported says that a target cannot be had in a variant at all.
var errUnsupported = errors.New("variant not supported")

// cacheAge is how long an unused build stays in the cache.
const cacheAge = 7 * 24 * time.Hour

// Build returns the path of the named target's binary, compiling it if neither
// the cache nor $SBXTRACE_TARGETS has it. The test is skipped if a compiler is
// missing or the variant is impossible, and fails if CI=true and a compiler is
// missing. Several test processes may call it at once.
func Build(t testing.TB, name string, opts ...Option) string {
	t.Helper()
	v := newVariant(opts)
	if dir := os.Getenv("SBXTRACE_TARGETS"); dir != "" {
		path, err := prebuilt(dir, name, v)
		if err != nil {
			t.Skipf("target %s: %v", name, err)
		}
		return path
	}
	path, err := cached(name, v)
	switch {
	case err == nil:
	case skips(err):
		t.Skipf("target %s (%s): %v", name, v, err)
	default:
		t.Fatalf("target %s (%s): %v", name, v, err)
	}
	return path
}

// skips says whether a failed build skips a test instead of failing it.
func skips(err error) bool {
	return errors.Is(err, errUnsupported) || errors.Is(err, errNoCompiler) && os.Getenv("CI") != "true"
}

// cached returns the target's binary from the build cache, building it first if
// its sources, flags or compiler changed.
func cached(name string, v variant) (string, error) {
	spec, ok := registry[name]
	if !ok {
		return "", fmt.Errorf("no such target; there are %s", strings.Join(Names(), ", "))
	}
	if err := spec.check(v); err != nil {
		return "", err
	}
	root, err := sourceRoot()
	if err != nil {
		return "", err
	}
	tool, err := compilerFor(spec, v)
	if err != nil {
		return "", err
	}
	key, err := cacheKey(root, name, spec, v, tool)
	if err != nil {
		return "", err
	}
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, name+"-"+key)
	path := filepath.Join(dir, name)

	unlock, err := lock(dir + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	now := time.Now()
	if _, err := os.Stat(path); err == nil {
		return path, os.Chtimes(dir, now, now) // keeps it from being pruned
	}
	prune(cache, now)
	work, err := os.MkdirTemp(cache, "build-*")
	if err != nil {
		return "", fmt.Errorf("build directory: %w", err)
	}
	defer os.RemoveAll(work)
	if err := os.Chmod(work, 0o755); err != nil { // targets also run as other users
		return "", err
	}
	if err := compile(root, name, spec, v, tool, work); err != nil {
		return "", err
	}
	if err := os.Rename(work, dir); err != nil {
		return "", fmt.Errorf("keep build: %w", err)
	}
	return path, nil
}

// sourceRoot finds the src directory from the working directory, which for
// tests is their package's. It does not rely on paths in the binary, which
// -trimpath removes.
func sourceRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		src := filepath.Join(dir, "internal", "targets", "src")
		if _, err := os.Stat(filepath.Join(src, "include", "truth.h")); err == nil {
			return src, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("sources of the targets not found above the working directory")
		}
		dir = parent
	}
}

// cacheDir returns the user's own build directory. It lies in the temporary
// directory, not in the home directory, so that a target can also be executed
// after sbxtrace dropped root's rights.
func cacheDir() (string, error) {
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("sbxtrace-targets-%d", os.Geteuid()))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("build cache: %w", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return "", fmt.Errorf("build cache: %w", err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || int(stat.Uid) != os.Geteuid() || info.Mode().Perm()&0o022 != 0 {
		return "", fmt.Errorf("build cache %s is not a directory that only this user can write", dir)
	}
	return dir, nil
}

// lock takes an exclusive lock on the file, waiting for other processes.
func lock(path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o644)
	if err != nil {
		return nil, fmt.Errorf("build lock: %w", err)
	}
	for {
		err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX)
		if err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { file.Close() }, nil
}

// prune removes builds that were not used for cacheAge. Lock files stay: they
// are empty, and removing one would let two processes hold "the" lock.
func prune(cache string, now time.Time) {
	entries, err := os.ReadDir(cache)
	if err != nil {
		return
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err == nil && entry.IsDir() && now.Sub(info.ModTime()) > cacheAge {
			os.RemoveAll(filepath.Join(cache, entry.Name()))
		}
	}
}

// cacheKey hashes everything that decides what the binary looks like: the
// target's sources, the shared ones, the flags and the compiler's version.
func cacheKey(root, name string, spec target, v variant, tool compiler) (string, error) {
	hash := sha256.New()
	fmt.Fprintf(hash, "%+v\n%+v\n%s\n%s\n", spec, v, tool.path, tool.version)
	shared := "include"
	if spec.lang == langGo {
		shared = "gotruth"
	}
	for _, dir := range []string{spec.sources(name), shared} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			relative, err := filepath.Rel(root, path)
			fmt.Fprintf(hash, "%s %d\n", relative, len(text))
			hash.Write(text)
			return err
		})
		if err != nil {
			return "", fmt.Errorf("hash sources: %w", err)
		}
	}
	return hex.EncodeToString(hash.Sum(nil)[:8]), nil
}

// compiler is a toolchain found on this machine.
type compiler struct {
	path    string
	version string // its own words
}

var compilers sync.Map // command name → func() (compiler, error), run once

// findCompiler looks up a compiler by its candidates' names, best first.
func findCompiler(versionFlag string, names ...string) (compiler, error) {
	key := strings.Join(names, " ")
	once, _ := compilers.LoadOrStore(key, sync.OnceValues(func() (compiler, error) {
		for _, name := range names {
			path, err := exec.LookPath(name)
			if err != nil {
				continue
			}
			version, err := exec.Command(path, versionFlag).Output()
			if err != nil {
				return compiler{}, fmt.Errorf("%s %s: %w", path, versionFlag, err)
			}
			return compiler{path, string(version)}, nil
		}
		return compiler{}, fmt.Errorf("%w: %s not found", errNoCompiler, strings.Join(names, " or "))
	}))
	return once.(func() (compiler, error))()
}
