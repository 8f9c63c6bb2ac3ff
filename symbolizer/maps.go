package symbolizer

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Mapping is one executable mapping of a process.
type Mapping struct {
	Start   uint64 // first address
	End     uint64 // first address after it
	Offset  uint64 // offset of Start in the file
	Dev     uint64 // device of the file's superblock, as unix.Mkdev makes it
	Inode   uint64 // 0 if no file is mapped
	Path    string // as the kernel shows it, without " (deleted)"; "[vdso]" and the like; empty for anonymous memory
	Deleted bool   // the file's name is gone: removed or replaced since it was mapped
}

// IsFile reports whether the mapping is backed by a file.
func (m *Mapping) IsFile() bool { return m.Inode != 0 }

// FileOffset is the offset in the mapped file of an address in the mapping.
func (m *Mapping) FileOffset(addr uint64) uint64 { return addr - m.Start + m.Offset }

// maxMappings bounds what is kept of one process. The kernel's default limit on
// all mappings is 65,530.
const maxMappings = 1 << 20

// Maps returns the executable file mappings of a process in address order. It
// fails with ErrNoProcess if the process is gone.
func Maps(pid int) ([]Mapping, error) {
	all, err := executableMaps(pid)
	return slices.DeleteFunc(all, func(m Mapping) bool { return !m.IsFile() }), err
}

// executableMaps returns all executable mappings, anonymous ones and the vdso
// included.
func executableMaps(pid int) ([]Mapping, error) {
	f, err := os.Open(filepath.Join(procDir(pid), "maps"))
	if err != nil {
		return nil, procError(pid, err)
	}
	defer f.Close()
	maps, err := ParseMaps(f)
	if err != nil {
		return nil, procError(pid, err)
	}
	return maps, nil
}

// ParseMaps reads the format of /proc/PID/maps (proc_pid_maps(5)) and returns
// the executable mappings. It fails with ErrMalformed at the first line that
// does not follow the format.
func ParseMaps(r io.Reader) ([]Mapping, error) {
	var maps []Mapping
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 4096), 64<<10) // a path of 4 KiB, each byte escaped
	for lines.Scan() {
		m, executable, err := parseMapping(lines.Bytes())
		if err != nil {
			return nil, err
		}
		if !executable {
			continue
		}
		if len(maps) >= maxMappings {
			return nil, fmt.Errorf("process maps: %w", ErrTooLarge)
		}
		maps = append(maps, m)
	}
	if err := lines.Err(); err != nil {
		if errors.Is(err, bufio.ErrTooLong) {
			err = ErrMalformed
		}
		return nil, fmt.Errorf("process maps: %w", err)
	}
	return maps, nil
}

// parseMapping decodes one line: "start-end perms offset major:minor inode path".
func parseMapping(line []byte) (m Mapping, executable bool, err error) {
	bad := func() (Mapping, bool, error) {
		return Mapping{}, false, fmt.Errorf("process maps: %w: line %.120q", ErrMalformed, line)
	}
	var fields [5][]byte
	rest := line
	for i := range fields {
		var ok bool
		fields[i], rest, ok = bytes.Cut(rest, []byte(" "))
		if !ok && i < len(fields)-1 {
			return bad()
		}
	}
	start, end, ok := bytes.Cut(fields[0], []byte("-"))
	major, minor, ok2 := bytes.Cut(fields[3], []byte(":"))
	if !ok || !ok2 || len(fields[1]) != 4 {
		return bad()
	}
	var devMajor, devMinor uint64
	for _, number := range []struct {
		text []byte
		base int
		bits int
		to   *uint64
	}{
		{start, 16, 64, &m.Start}, {end, 16, 64, &m.End}, {fields[2], 16, 64, &m.Offset},
		{major, 16, 32, &devMajor}, {minor, 16, 32, &devMinor}, {fields[4], 10, 64, &m.Inode},
	} {
		if *number.to, err = strconv.ParseUint(string(number.text), number.base, number.bits); err != nil {
			return bad()
		}
	}
	if m.End <= m.Start {
		return bad()
	}
	m.Dev = unix.Mkdev(uint32(devMajor), uint32(devMinor))
	if fields[1][2] != 'x' {
		return m, false, nil
	}
	m.Path = strings.ReplaceAll(string(bytes.TrimLeft(rest, " ")), `\012`, "\n")
	if m.Inode != 0 {
		m.Path, m.Deleted = strings.CutSuffix(m.Path, deletedSuffix)
	}
	return m, true, nil
}

// deletedSuffix follows the path of a file without a name in /proc.
const deletedSuffix = " (deleted)"

// Module is one ELF file mapped executable into a process.
type Module struct {
	Path     string // as the target sees it
	Dev      uint64
	Inode    uint64
	Deleted  bool
	Main     bool      // the process's executable
	Mappings []Mapping // its executable mappings in address order
}

// Name is the base name of the module's path.
func (m *Module) Name() string { return filepath.Base(m.Path) }

// Modules returns the files mapped executable into a process: the executable
// first, then in address order. Files that are not ELF (a JIT's perf buffers,
// for example) are among them. It fails with ErrNoProcess if the process is gone.
func Modules(pid int) ([]Module, error) {
	maps, err := Maps(pid)
	if err != nil {
		return nil, err
	}
	exeDev, exeInode := exeIdentity(pid)
	exePath, _ := Exe(pid)
	modules := groupModules(maps)
	// The inode decides. File systems that report other numbers by stat than in
	// maps (btrfs, overlayfs on older kernels) leave the path.
	main := slices.IndexFunc(modules, func(m Module) bool { return m.Inode == exeInode && m.Dev == exeDev && exeInode != 0 })
	if main < 0 {
		main = slices.IndexFunc(modules, func(m Module) bool { return m.Path == exePath && exePath != "" })
	}
	if main >= 0 {
		modules[main].Main = true
		slices.SortStableFunc(modules, func(a, b Module) int {
			switch {
			case a.Main && !b.Main:
				return -1
			case b.Main && !a.Main:
				return 1
			}
			return cmp.Compare(a.Mappings[0].Start, b.Mappings[0].Start)
		})
	}
	return modules, nil
}

func groupModules(maps []Mapping) []Module {
	type identity struct {
		dev, inode uint64
		path       string
	}
	at := make(map[identity]int)
	var modules []Module
	for _, m := range maps {
		id := identity{m.Dev, m.Inode, m.Path}
		i, seen := at[id]
		if !seen {
			i = len(modules)
			at[id] = i
			modules = append(modules, Module{Path: m.Path, Dev: m.Dev, Inode: m.Inode, Deleted: m.Deleted})
		}
		modules[i].Mappings = append(modules[i].Mappings, m)
	}
	return modules
}

// exeIdentity is the device and inode of the executable, zeroes if unknown.
func exeIdentity(pid int) (dev, inode uint64) {
	var st unix.Stat_t
	if unix.Stat(filepath.Join(procDir(pid), "exe"), &st) != nil {
		return 0, 0
	}
	return st.Dev, st.Ino
}

// ModulePath returns a path by which this process can open the very file that is
// mapped, in whatever mount namespace it is and whether or not its name is still
// there or means another file by now. The path holds as long as the process and
// the mapping live: open it at once. It fails with ErrNoProcess if the process
// is gone and with the operating system's error if nothing leads to the file.
func ModulePath(pid int, m Mapping) (string, error) {
	if !m.IsFile() {
		return "", fmt.Errorf("pid %d: %q: %w: no file", pid, m.Path, ErrNotELF)
	}
	dir := procDir(pid)
	candidates := []string{
		filepath.Join(dir, "root", m.Path),
		m.Path, // a chroot: the kernel shows paths from our root
		filepath.Join(dir, "exe"),
	}
	if m.Deleted { // a file may really be called that
		candidates = append(candidates, filepath.Join(dir, "root", m.Path+deletedSuffix))
	}
	sameInode := ""
	for _, path := range candidates {
		var st unix.Stat_t
		if !strings.HasPrefix(path, "/") || unix.Stat(path, &st) != nil || st.Ino != m.Inode {
			continue
		}
		if st.Dev == m.Dev {
			return path, nil
		}
		if sameInode == "" && !m.Deleted {
			sameInode = path
		}
	}
	// Needs CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE, but is always the right file.
	link := filepath.Join(procRoot, strconv.Itoa(pid), "map_files", fmt.Sprintf("%x-%x", m.Start, m.End))
	f, err := os.Open(link)
	if err == nil {
		f.Close()
		return link, nil
	}
	if sameInode != "" {
		// stat and maps disagree about devices on btrfs: the inode has to do.
		return sameInode, nil
	}
	if !ProcessExists(pid) {
		return "", fmt.Errorf("pid %d: %w", pid, ErrNoProcess)
	}
	return "", fmt.Errorf("pid %d: open mapped file %s: %w", pid, m.Path, err)
}
