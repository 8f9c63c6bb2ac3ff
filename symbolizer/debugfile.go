package symbolizer

import (
	"bytes"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// debugFile returns the separate debug file that belongs to b, or nil. It is
// looked for once, in gdb's order: build id, then .gnu_debuglink beside the
// binary, in .debug and below the global debug directories. What SetDebugSearch
// names comes before, its servers last.
func (b *Binary) debugFile() *Binary {
	b.debugOnce.Do(func() {
		if b.opts.NoDebugFiles {
			return
		}
		for _, find := range []func() *Binary{b.debugInDirs, b.debugByBuildID, b.debugByLink, b.debugFromServer} {
			if b.debug = find(); b.debug != nil {
				return
			}
		}
	})
	return b.debug
}

func (b *Binary) debugDirs() []string {
	if b.opts.DebugDirs != nil {
		return b.opts.DebugDirs
	}
	return []string{"/usr/lib/debug"}
}

func (b *Binary) debugByBuildID() *Binary {
	if len(b.BuildID) < 4 {
		return nil
	}
	roots := []string{b.opts.Root}
	if b.opts.Root != "" {
		// Containers rarely have debug files; a build id means the same outside.
		roots = append(roots, "/")
	}
	for _, root := range roots {
		for _, dir := range b.debugDirs() {
			path := filepath.Join(root, dir, ".build-id", b.BuildID[:2], b.BuildID[2:]+".debug")
			if d := openDebug(path, b.BuildID); d != nil {
				return d
			}
		}
	}
	return nil
}

func (b *Binary) debugByLink() *Binary {
	name, crc, ok := b.debugLink()
	if !ok {
		return nil
	}
	dir := filepath.Dir(b.targetPath())
	candidates := []string{filepath.Join(dir, name), filepath.Join(dir, ".debug", name)}
	for _, d := range b.debugDirs() {
		candidates = append(candidates, filepath.Join(d, dir, name))
	}
	for _, c := range candidates {
		path := filepath.Join(b.opts.Root, c)
		if sameFile(path, b.Path) {
			continue
		}
		d, err := Options{NoDebugFiles: true}.Open(path)
		if err != nil {
			continue
		}
		if b.debugMatches(d, crc) {
			return d
		}
		d.close()
	}
	return nil
}

// targetPath is the path by which the target knows the binary.
func (b *Binary) targetPath() string {
	if b.opts.TargetPath != "" {
		return b.opts.TargetPath
	}
	path := strings.TrimPrefix(b.Path, b.opts.Root)
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	if b.opts.Root == "" {
		// Distributions link names: /bin may be /usr/bin.
		if real, err := filepath.EvalSymlinks(path); err == nil {
			return real
		}
	}
	return path
}

func sameFile(a, b string) bool {
	ai, err := os.Stat(a)
	if err != nil {
		return false
	}
	bi, err := os.Stat(b)
	return err == nil && os.SameFile(ai, bi)
}

// debugLink returns the file name and checksum of .gnu_debuglink.
func (b *Binary) debugLink() (name string, crc uint32, ok bool) {
	s := b.section(".gnu_debuglink")
	if s == nil {
		return "", 0, false
	}
	data, err := b.sectionData(s, 64<<10)
	if err != nil {
		return "", 0, false
	}
	end := bytes.IndexByte(data, 0)
	if end <= 0 {
		return "", 0, false
	}
	// The checksum follows the name at the next multiple of four.
	at := (end + 4) &^ 3
	if at+4 > len(data) {
		return "", 0, false
	}
	name = string(data[:end])
	if name != filepath.Base(name) || name == "." || name == ".." {
		return "", 0, false // a name with directories could leave Root
	}
	return name, b.byteOrder().Uint32(data[at:]), true
}

// debugMatches decides whether d was split off b: by build id if both have one,
// else by the checksum of the whole file.
func (b *Binary) debugMatches(d *Binary, crc uint32) bool {
	if b.BuildID != "" && d.BuildID != "" {
		return b.BuildID == d.BuildID
	}
	const maxChecked = 4 << 30
	if d.size > maxChecked {
		return false
	}
	h := crc32.NewIEEE()
	if _, err := io.Copy(h, io.NewSectionReader(d.r, 0, d.size)); err != nil {
		return false
	}
	return h.Sum32() == crc
}
