package tracer

import (
	"golang.org/x/sys/unix"

	"github.com/sbxtrace/sbxtrace/symbolizer"
	"github.com/sbxtrace/sbxtrace/uprobes"
)

// fileID tells files apart whatever their names.
type fileID struct{ dev, inode uint64 }

// mapped is a file that a process has mapped executable.
type mapped struct {
	symbolizer.Module
	id  fileID
	pid int
}

// mappedFiles are the files that pid has mapped executable, its program first.
func mappedFiles(pid uint32) ([]mapped, error) {
	mods, err := symbolizer.Modules(int(pid))
	if err != nil {
		return nil, err
	}
	out := make([]mapped, len(mods))
	for i := range mods {
		out[i] = mapped{mods[i], fileID{mods[i].Dev, mods[i].Inode}, int(pid)}
	}
	return out, nil
}

// openPath is a path by which the very file that is mapped can be opened.
func (m *mapped) openPath() (string, error) {
	return symbolizer.ModulePath(m.pid, m.Mappings[0])
}

// open reads the file, with debug files looked up where the process would.
func (m *mapped) open() (*symbolizer.Binary, error) {
	path, err := m.openPath()
	if err != nil {
		return nil, err
	}
	return symbolizer.Options{Root: symbolizer.RootPath(m.pid), TargetPath: m.Path}.OpenCached(path)
}

// exeID identifies the program that pid runs, zeros if that cannot be read.
func exeID(pid int) fileID {
	var st unix.Stat_t
	if unix.Stat(symbolizer.ExePath(pid), &st) != nil {
		return fileID{}
	}
	return fileID{st.Dev, st.Ino}
}

// goidOffset is the offset of goid in runtime.g for a release of Go, in bytes.
func goidOffset(release string) uint16 {
	if layout, ok := symbolizer.GoRuntimeOf(release); ok {
		return uint16(layout.GoID)
	}
	return 152 // up to Go 1.17
}

// costModel is what probes cost on this kind of machine: single-stepping an
// instruction is far dearer under a hypervisor.
func costModel() uprobes.CostModel {
	if virtualised() {
		return uprobes.VirtualCost
	}
	return uprobes.BareMetalCost
}
