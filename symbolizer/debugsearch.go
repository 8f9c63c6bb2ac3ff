package symbolizer

import (
	"path/filepath"
	"sync/atomic"
)

// DebugSearch is where debug files are looked for besides the places that Options
// name.
type DebugSearch struct {
	// Dirs have debug files, or whole programs and libraries with symbols, by
	// build id (DIR/.build-id/ab/cdef.debug, DIR/abcdef, DIR/abcdef.debug) or by
	// name (DIR/libc.so.6, DIR/libc.so.6.debug). Only those with the build id of
	// what they are for are taken. They are looked through first.
	Dirs []string
	// Debuginfod is asked last, about files without debug information; nil: never.
	Debuginfod *Debuginfod
}

var debugSearch atomic.Pointer[DebugSearch]

// SetDebugSearch says where all Binaries look for debug files from now on. Those
// that have looked already do not look again.
func SetDebugSearch(s DebugSearch) { debugSearch.Store(&s) }

// debugInDirs looks through the directories of DebugSearch.
func (b *Binary) debugInDirs() *Binary {
	s := debugSearch.Load()
	if s == nil || len(b.BuildID) < 4 {
		return nil
	}
	id := b.BuildID
	for _, dir := range s.Dirs {
		for _, name := range []string{
			filepath.Join(".build-id", id[:2], id[2:]+".debug"), id, id + ".debug",
			b.moduleName(), b.moduleName() + ".debug",
		} {
			path := filepath.Join(dir, name)
			if sameFile(path, b.Path) {
				continue
			}
			if d := openDebug(path, id); d != nil {
				return d
			}
		}
	}
	return nil
}

// debugFromServer asks the debuginfod servers.
func (b *Binary) debugFromServer() *Binary {
	s := debugSearch.Load()
	if s == nil || s.Debuginfod == nil || len(b.BuildID) < 4 || b.IsGo() || b.section(".debug_info") != nil || b.Path == vdsoName {
		return nil
	}
	path, err := s.Debuginfod.Find(b.BuildID, DebugInfo, b.moduleName())
	if err != nil {
		return nil // Begin was told
	}
	return openDebug(path, b.BuildID)
}

// openDebug opens a debug file if it has the build id.
func openDebug(path, buildID string) *Binary {
	d, err := Options{NoDebugFiles: true}.Open(path)
	if err != nil {
		return nil
	}
	if d.BuildID != buildID {
		d.close()
		return nil
	}
	return d
}
