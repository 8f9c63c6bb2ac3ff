package symbolizer

import "debug/elf"

// ExecutableMaps returns all executable mappings of a process in address order:
// files, the vdso, and memory without a file, such as a JIT's. It fails with
// ErrNoProcess if the process is gone.
func ExecutableMaps(pid int) ([]Mapping, error) { return executableMaps(pid) }

// IsVDSO reports whether the mapping is the kernel's shared library.
func (m *Mapping) IsVDSO() bool { return m.Inode == 0 && m.Path == vdsoName }

// OpenMapping opens what a process has mapped: its file through the cache, with
// debug files looked up where the process would, or a copy of the vdso. Close
// gives it back. It fails with an error wrapping ErrNotELF for memory that is
// neither.
func OpenMapping(pid int, m Mapping) (*Binary, error) {
	if m.IsVDSO() {
		return readVDSO(pid, &m)
	}
	path, err := ModulePath(pid, m)
	if err != nil {
		return nil, err
	}
	return Options{Root: RootPath(pid), TargetPath: m.Path}.OpenCached(path)
}

// Bias is what the mapping adds to the addresses of the file: an address in the
// process less the bias is a virtual address as Lookup takes it. ok is false if
// no loadable segment is mapped there.
func (b *Binary) Bias(m *Mapping) (bias uint64, ok bool) {
	seg := b.segmentAt(m)
	if seg == nil {
		return 0, false
	}
	return m.Start - (m.Offset - seg.Off + seg.Vaddr), true
}

// segmentAt is the segment that a mapping shows, the executable one where
// several share the page at its start.
func (b *Binary) segmentAt(m *Mapping) *elf.Prog {
	const page = 4096
	var found *elf.Prog
	for _, p := range b.file.Progs {
		if p.Type != elf.PT_LOAD || m.Offset < p.Off&^(page-1) || m.Offset >= p.Off+p.Filesz {
			continue
		}
		if p.Flags&elf.PF_X != 0 {
			return p
		}
		if found == nil {
			found = p
		}
	}
	return found
}

// Segment is a loadable part of a file.
type Segment struct {
	Start, End uint64 // virtual addresses, not relocated; whole pages
	Offset     uint64 // of Start in the file
}

// Segment returns the part of the file that has a virtual address.
func (b *Binary) Segment(addr uint64) (Segment, bool) {
	const page = 4096
	for _, p := range b.file.Progs {
		if p.Type == elf.PT_LOAD && addr >= p.Vaddr && addr-p.Vaddr < p.Memsz {
			skew := p.Vaddr & (page - 1)
			return Segment{Start: p.Vaddr - skew, End: (p.Vaddr + p.Memsz + page - 1) &^ (page - 1), Offset: p.Off - skew}, true
		}
	}
	return Segment{}, false
}
