package symbolizer

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// FindByName returns the processes whose name matches the glob pattern
// (path.Match), in ascending order of their ids: the name of the main thread,
// the base name of the executable, or that of the first argument, which is how
// services rename themselves ("postgres: checkpointer" is "postgres"). Kernel
// threads, zombies and the calling process are left out. Nothing found is no
// error; a bad pattern is.
func FindByName(pattern string) ([]int, error) {
	if _, err := path.Match(pattern, ""); err != nil {
		return nil, fmt.Errorf("process name %q: %w", pattern, err)
	}
	return findProcesses(func(pid int) bool { return HasName(pid, pattern) })
}

// HasName reports whether a process is one that FindByName finds.
func HasName(pid int, pattern string) bool {
	exe, err := Exe(pid)
	if err != nil {
		return false
	}
	names := []string{filepath.Base(exe)}
	if comm, err := Comm(pid); err == nil {
		names = append(names, comm)
	}
	if args, err := Cmdline(pid); err == nil && len(args) > 0 {
		first, _, _ := strings.Cut(args[0], ": ")
		names = append(names, filepath.Base(first))
	}
	return slices.ContainsFunc(names, func(name string) bool {
		ok, _ := path.Match(pattern, name)
		return ok
	})
}

// FindByCgroup returns the processes in a control group and in the groups below
// it, in ascending order of their ids. The group is named by its path in the
// hierarchy ("/system.slice/redis.service") or below a mount of it
// ("/sys/fs/cgroup/system.slice/redis.service", "/sys/fs/cgroup/memory/…").
// Kernel threads, zombies and the calling process are left out. Nothing found is
// no error.
func FindByCgroup(group string) ([]int, error) {
	return findProcesses(func(pid int) bool { return InCgroup(pid, group) })
}

// InCgroup reports whether a process is one that FindByCgroup finds.
func InCgroup(pid int, group string) bool {
	if _, err := Exe(pid); err != nil {
		return false
	}
	groups, err := Cgroups(pid)
	return err == nil && slices.ContainsFunc(groups, func(g Cgroup) bool { return g.contains(group) })
}

func findProcesses(match func(pid int) bool) ([]int, error) {
	all, err := Processes()
	if err != nil {
		return nil, err
	}
	self := os.Getpid()
	var found []int
	for _, pid := range all {
		if pid != self && match(pid) {
			found = append(found, pid)
		}
	}
	return found, nil
}

// Cgroup is the membership of a process in one control group hierarchy.
type Cgroup struct {
	Controllers string // of a version 1 hierarchy ("cpu,cpuacct"); empty for version 2
	Path        string // from the hierarchy's root
}

// Cgroups returns the control groups of a process, see cgroups(7).
func Cgroups(pid int) ([]Cgroup, error) {
	data, err := readProc(pid, "cgroup")
	if err != nil {
		return nil, err
	}
	return parseCgroups(string(data)), nil
}

// parseCgroups reads lines of "hierarchy:controllers:path" and skips others.
func parseCgroups(data string) []Cgroup {
	var groups []Cgroup
	for line := range strings.Lines(data) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) == 3 && strings.HasPrefix(fields[2], "/") {
			groups = append(groups, Cgroup{Controllers: fields[1], Path: fields[2]})
		}
	}
	return groups
}

// cgroupMount is where systemd and all distributions mount control groups.
const cgroupMount = "/sys/fs/cgroup"

// contains reports whether the group called name is c's or above it.
func (c Cgroup) contains(name string) bool {
	name = path.Clean("/" + name)
	if inside, ok := strings.CutPrefix(name, cgroupMount); ok {
		// Version 1 has a directory for each hierarchy, "unified" beside them for
		// version 2.
		prefix := "/unified"
		if c.Controllers != "" {
			prefix = "/" + strings.TrimPrefix(c.Controllers, "name=")
		}
		if rest, ok := strings.CutPrefix(inside, prefix); ok && (rest == "" || rest[0] == '/') {
			inside = rest
		} else if c.Controllers != "" {
			return false
		}
		name = path.Clean("/" + inside)
	}
	return name == "/" || c.Path == name || strings.HasPrefix(c.Path, name+"/")
}
