package symbolizer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNoJITNames: the process has written no names of the code that it generates,
// or not where they are looked for. ErrUntrusted: the file with the names is not
// the process's own.
var (
	ErrNoJITNames = errors.New("no names for generated code")
	ErrUntrusted  = errors.New("not trusted")
)

// JITSymbols are the names of the code that a process's runtime generates, as
// far as the runtime writes them down: into a jitdump file that it maps, or into
// /tmp/perf-PID.map. The file is read again as it grows, and stays open, so that
// names can be looked up after the process has ended. All methods are safe for
// concurrent use.
type JITSymbols struct {
	path      string
	minReread time.Duration

	mu     sync.Mutex
	file   *os.File
	next   int64 // where the part begins that was not read
	dump   *jitdump
	code   jitCode
	looked time.Time
	err    error // that ended the reading
}

// OpenJITSymbols opens the names that a process has written of its generated
// code. It fails with ErrNoJITNames if there are none, with ErrUntrusted if the
// file does not belong to the process's user or is no regular file, and with
// ErrNoProcess.
func OpenJITSymbols(pid int) (*JITSymbols, error) {
	maps, err := executableMaps(pid)
	if err != nil {
		return nil, err
	}
	return openJITSymbols(pid, maps)
}

func openJITSymbols(pid int, maps []Mapping) (*JITSymbols, error) {
	ids, err := NSpid(pid)
	if err != nil {
		return nil, err
	}
	own := ids[len(ids)-1]
	var refused error
	for _, name := range jitFiles(own, maps) {
		f, err := openOwned(pid, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			refused = errors.Join(refused, fmt.Errorf("pid %d: %s: %w", pid, name, err))
			continue
		}
		j := &JITSymbols{path: name, file: f, minReread: 200 * time.Millisecond}
		if strings.HasSuffix(name, ".dump") {
			j.dump = &jitdump{}
		}
		if err := j.Refresh(); err != nil && len(j.code.ranges) == 0 && len(j.code.pending) == 0 {
			f.Close()
			refused = errors.Join(refused, fmt.Errorf("pid %d: %s: %w", pid, name, err))
			continue
		}
		return j, nil
	}
	if refused != nil {
		return nil, refused
	}
	return nil, fmt.Errorf("pid %d: %w: it has not written %s%s", pid, ErrNoJITNames, perfMapPath(own), jitHint(pid))
}

func perfMapPath(pid int) string { return fmt.Sprintf("/tmp/perf-%d.map", pid) }

// jitFiles are the files to look for, the best first, as the process sees them.
// A jitdump file has source lines too; it announces itself by a mapping.
func jitFiles(own int, maps []Mapping) []string {
	var names []string
	dump := fmt.Sprintf("jit-%d.dump", own)
	for _, m := range maps {
		if m.IsFile() && !m.Deleted && path.Base(m.Path) == dump {
			names = append(names, m.Path)
			break
		}
	}
	return append(names, perfMapPath(own))
}

// openOwned opens a file below the process's root, whatever links lie in the
// way, if it is a regular file of the process's user: anyone can put a file into
// /tmp, but not one that belongs to somebody else.
func openOwned(pid int, name string) (*os.File, error) {
	root, err := os.Open(RootPath(pid))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	fd, err := unix.Openat2(int(root.Fd()), strings.TrimPrefix(name, "/"), &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC | unix.O_NOFOLLOW,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("%w: it is a symbolic link", ErrUntrusted)
	}
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	if err := ownedByUser(pid, f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func ownedByUser(pid int, f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if info, err := f.Stat(); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%w: it is a %s", ErrUntrusted, fileKind(info.Mode()))
	}
	creds, err := Creds(pid)
	if err != nil {
		return err
	}
	if uid := int(st.Uid); uid != creds.EUID && uid != creds.UID {
		return fmt.Errorf("%w: it belongs to user %d, the process to user %d", ErrUntrusted, uid, creds.EUID)
	}
	return nil
}

// jitHints say how to make runtimes write names, by the program's name.
var jitHints = []struct{ program, hint string }{
	{"node", "start it with: node --perf-basic-prof"},
	{"beam.smp", "start it with: erl +JPperf true"},
	{"java", "write it with: jcmd PID Compiler.perfmap"},
	{"dotnet", "start it with: DOTNET_PerfMapEnabled=1"},
}

func jitHint(pid int) string {
	exe, _ := Exe(pid)
	for _, h := range jitHints {
		if filepath.Base(exe) == h.program {
			return "; " + strings.ReplaceAll(h.hint, "PID", strconv.Itoa(pid))
		}
	}
	return ""
}

// Path is the file with the names, as the process sees it.
func (j *JITSymbols) Path() string { return j.path }

// Refresh reads what the runtime has written since the last time. Lookup does so
// itself, but not more than five times a second. An error says why names may be missing;
// those that are known stay.
func (j *JITSymbols) Refresh() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.refresh()
}

// maxJITFile bounds how much of a file is read.
const maxJITFile = 8 << 30

func (j *JITSymbols) refresh() error {
	j.looked = time.Now()
	if j.err != nil || j.file == nil {
		return j.err
	}
	info, err := j.file.Stat()
	if err != nil {
		return err
	}
	size := min(info.Size(), maxJITFile)
	if size < j.next { // written anew
		j.next, j.code = 0, jitCode{}
		if j.dump != nil {
			j.dump = &jitdump{}
		}
	}
	if j.dump != nil {
		j.next, err = j.dump.read(j.file, j.next, size, &j.code)
	} else {
		j.next, err = readPerfMap(j.file, j.next, size, &j.code)
	}
	if errors.Is(err, ErrMalformed) {
		j.err = err
	}
	return err
}

// Lookup returns the generated function that has addr and how far into it the
// address is; ok is false where the runtime has named none.
func (j *JITSymbols) Lookup(addr uint64) (fn JITFunction, off uint64, ok bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	// Also for addresses that have a name: the runtime uses them again.
	if time.Since(j.looked) >= j.minReread {
		_ = j.refresh() // what is known stays
	}
	r, ok := j.code.find(addr)
	if !ok {
		return JITFunction{}, 0, false
	}
	fn = jitFunction(r.name)
	if r.lines != nil {
		fn.File, fn.Line = r.lines.at(addr)
	}
	return fn, addr - r.base, true
}

// Dropped is how many functions were forgotten to bound memory.
func (j *JITSymbols) Dropped() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.code.dropped
}

// Close gives the file back. What was read can still be looked up.
func (j *JITSymbols) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return nil
	}
	err := j.file.Close()
	j.file = nil
	return err
}
