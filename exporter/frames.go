package exporter

import (
	"path"
	"strconv"
	"strings"

	"github.com/google/pprof/profile"
)

// Frame is one function as it stands in a stack, wherever in the function.
type Frame struct {
	Name   string // demangled; module+0xoffset without a name
	Module string // base name of the ELF file, "[kernel]" for the kernel, empty if unknown
	File   string // source file, empty if unknown
	Lang   string // "c", "c++", "rust", "go", "python", "kernel", …; empty if unknown
}

// Labels of samples, as sbxtrace writes them and, with their other names, as
// other tools do.
const (
	// LabelPID is the process id, a number.
	LabelPID = "pid"
	// LabelTID is the thread id, a number.
	LabelTID = "tid"
	// LabelComm is the name of the process.
	LabelComm = "comm"
	// LabelThread is the name of the thread.
	LabelThread = "thread"
	// LabelIncomplete is there when a stack does not reach its root; its
	// value says why.
	LabelIncomplete = "incomplete"
)

// Other names of the same.
var (
	pidLabels        = []string{LabelPID, "process_id", "process.pid"}
	tidLabels        = []string{LabelTID, "thread_id", "thread.id"}
	commLabels       = []string{LabelComm, "process", "process.executable.name"}
	threadLabels     = []string{LabelThread, "thread_name", "thread name", "thread.name", "thread_comm"}
	incompleteLabels = []string{LabelIncomplete, "truncated"}
)

// kernelModule names the kernel, whatever its modules.
const kernelModule = "[kernel]"

// place is a frame with the line in it; 0 unknown.
type place struct {
	frame int32
	line  int32
}

// frameTable numbers the frames of a profile: functions of one name in one
// module are one, wherever they are mapped.
type frameTable struct {
	frames []Frame
	ids    map[frameKey]int32
	places map[*profile.Location][]place
}

type frameKey struct{ name, module string }

func newFrameTable() *frameTable {
	return &frameTable{ids: make(map[frameKey]int32), places: make(map[*profile.Location][]place)}
}

// add returns the number of a frame.
func (t *frameTable) add(f Frame) int32 {
	k := frameKey{f.Name, f.Module}
	id, ok := t.ids[k]
	if !ok {
		id = int32(len(t.frames))
		t.ids[k] = id
		t.frames = append(t.frames, f)
	}
	if at := &t.frames[id]; at.File == "" {
		at.File = f.File
	}
	return id
}

// at returns the frames of a location, the caller first and what is inlined
// into it after it.
func (t *frameTable) at(l *profile.Location) []place {
	if places, ok := t.places[l]; ok {
		return places
	}
	places := make([]place, 0, max(len(l.Line), 1))
	module := moduleName(l.Mapping)
	for i := len(l.Line) - 1; i >= 0; i-- {
		line := &l.Line[i]
		if line.Function == nil {
			continue
		}
		f := Frame{Name: functionName(line.Function), Module: module, File: line.Function.Filename}
		if f.Name == "" {
			f.Name = addressName(l)
		}
		f.Lang = language(&f, line.Function.SystemName)
		places = append(places, place{t.add(f), clampLine(line.Line)})
	}
	if len(places) == 0 {
		f := Frame{Name: addressName(l), Module: module}
		f.Lang = language(&f, "")
		places = append(places, place{t.add(f), 0})
	}
	t.places[l] = places
	return places
}

// stack appends the frames of a sample to dst, the root first. It takes the
// innermost maxDepth of them.
func (t *frameTable) stack(dst []place, s *profile.Sample) []place {
	n := 0
	last := len(s.Location) - 1
	for i, l := range s.Location {
		if l == nil {
			continue
		}
		if n += len(t.at(l)); n >= maxDepth {
			last = i
			break
		}
	}
	for i := last; i >= 0; i-- {
		if l := s.Location[i]; l != nil {
			dst = append(dst, t.at(l)...)
		}
	}
	if extra := len(dst) - maxDepth; extra > 0 {
		dst = append(dst[:0], dst[extra:]...)
	}
	return dst
}

// maxDepth bounds the frames of one stack. Deeper ones, by recursion without
// end or made up, keep their innermost frames.
const maxDepth = 4096

func functionName(f *profile.Function) string {
	if f.Name != "" {
		return f.Name
	}
	return f.SystemName
}

// addressName names a location that has no function.
func addressName(l *profile.Location) string {
	if l.Mapping == nil || l.Mapping.File == "" {
		return "0x" + strconv.FormatUint(l.Address, 16)
	}
	offset := l.Address
	if l.Address >= l.Mapping.Start && l.Mapping.Start > 0 {
		offset = l.Address - l.Mapping.Start + l.Mapping.Offset
	}
	return moduleName(l.Mapping) + "+0x" + strconv.FormatUint(offset, 16)
}

// moduleName shortens a mapping's file for people.
func moduleName(m *profile.Mapping) string {
	if m == nil || m.File == "" {
		return ""
	}
	file := strings.TrimSuffix(m.File, " (deleted)")
	switch {
	case isKernel(file):
		return kernelModule
	case strings.HasPrefix(file, "["):
		return file
	}
	return path.Base(strings.ReplaceAll(file, `\`, "/"))
}

// isKernel recognizes the kernel and its modules by the names that perf and
// sbxtrace give their mappings.
func isKernel(file string) bool {
	return strings.HasPrefix(file, "[kernel") || strings.HasPrefix(file, "[guest.kernel") || file == "kernel" ||
		file == "vmlinux" || strings.HasSuffix(file, "/vmlinux") ||
		strings.HasSuffix(file, ".ko") && strings.Contains(file, "/lib/modules/")
}

func clampLine(n int64) int32 {
	if n < 0 || n > 1<<31-1 {
		return 0
	}
	return int32(n)
}

// label returns the first value of the first of the labels that s has.
func label(s *profile.Sample, names []string) string {
	for _, name := range names {
		if v := s.Label[name]; len(v) > 0 && v[0] != "" {
			return v[0]
		}
		if v := s.NumLabel[name]; len(v) > 0 {
			return strconv.FormatInt(v[0], 10)
		}
	}
	return ""
}

// incomplete says why the stack of s does not reach its root; empty if it does.
func incomplete(s *profile.Sample) string {
	if why := label(s, incompleteLabels); why != "" && why != "false" && why != "0" {
		return why
	}
	if n := len(s.Location); n > 0 && s.Location[n-1] != nil {
		if lines := s.Location[n-1].Line; len(lines) > 0 && lines[len(lines)-1].Function != nil {
			switch name := lines[len(lines)-1].Function.Name; name {
			case "[incomplete]", "[truncated]", "[unknown]":
				return strings.Trim(name, "[]")
			}
		}
	}
	return ""
}

// thread is who a sample is of.
type thread struct{ pid, tid, comm, name string }

func threadOf(s *profile.Sample) thread {
	return thread{label(s, pidLabels), label(s, tidLabels), label(s, commLabels), label(s, threadLabels)}
}

// String names a thread: its name, and the ids where they are known.
func (t thread) String() string {
	name := t.name
	switch {
	case name == "":
		name = t.comm
	case t.comm != "" && t.comm != name:
		name = t.comm + "/" + name
	}
	id := t.tid
	switch {
	case id == "":
		id = t.pid
	case t.pid != "" && t.pid != t.tid:
		id = t.pid + "/" + t.tid
	}
	switch {
	case name == "" && id == "":
		return ""
	case name == "":
		return "thread " + id
	case id == "":
		return name
	}
	return name + " " + id
}
