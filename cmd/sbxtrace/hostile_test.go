package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/sbxtrace/sbxtrace/internal/targets"
)

// hostile are programs to damage: each has other tables for sbxtrace to read.
func hostile(t *testing.T) map[string]string {
	t.Helper()
	return map[string]string{
		"c":        targets.Build(t, "calls"),
		"c++":      targets.Build(t, "exceptions", targets.Strip()),
		"rust":     targets.Build(t, "rustcalls"),
		"go":       targets.Build(t, "gocalls"),
		"stripped": targets.Build(t, "gocalls", targets.Strip()),
	}
}

// listed lists the functions of a file as `sbxtrace functions` does. Whatever the
// file has in it, that works or ends in an error that names the file.
func listed(t *testing.T, what, path string, content []byte, flags ...string) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	status := run(append([]string{"functions", path, "m*"}, flags...), strings.NewReader(""), &stdout, &stderr)
	said := stderr.String()
	switch {
	case status == 0:
	case status != exitFailure, !strings.HasPrefix(said, "sbxtrace: "), strings.Count(said, "\n") > 6:
		t.Errorf("%s: status %d\n%s", what, status, said)
	case !strings.Contains(said, filepath.Base(path)) && !strings.Contains(said, "no function matches"):
		t.Errorf("%s: the message does not name the file: %s", what, said)
	}
}

// Cut off at the beginning, in the middle and at the end of everything in it.
func TestTruncatedELF(t *testing.T) {
	for name, program := range hostile(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			whole, err := os.ReadFile(program)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "damaged")
			for _, size := range boundaries(t, program) {
				if size <= uint64(len(whole)) && (size > 66 || name == "c") { // the header is the same in all
					listed(t, fmt.Sprintf("the first %d of %d bytes", size, len(whole)), path, whole[:size], "--verbose")
				}
			}
		})
	}
}

// boundaries are the interesting offsets of an ELF file.
func boundaries(t *testing.T, path string) []uint64 {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var at []uint64
	for n := range uint64(66) { // the file's header
		at = append(at, n)
	}
	around := func(offset, size uint64) {
		at = append(at, offset-1, offset, offset+1, offset+size/2, offset+size-1, offset+size)
	}
	for _, s := range f.Sections[1:] {
		if s.Type != elf.SHT_NOBITS {
			around(s.Offset, s.FileSize)
		}
	}
	for _, p := range f.Progs {
		around(p.Off, p.Filesz)
	}
	slices.Sort(at)
	return slices.Compact(at)
}

// Every field of the headers of file, segments and sections has values that
// cannot be, and as many bytes as they promise are not asked for.
func TestHostileHeaders(t *testing.T) {
	for _, name := range []string{"c", "stripped"} {
		t.Run(name, func(t *testing.T) {
			whole, err := os.ReadFile(hostile(t)[name])
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "damaged")
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			n := 0
			for _, f := range headerFields(whole) {
				for _, value := range []uint64{0, 1<<63 - 1} {
					damaged := slices.Clone(whole)
					f.put(damaged, value)
					listed(t, fmt.Sprintf("%#x at %#x", value, f.at), path, damaged)
					n++
				}
			}
			runtime.ReadMemStats(&after)
			// One copy of the file is made for each, some more are read.
			if each := (after.TotalAlloc - before.TotalAlloc) / uint64(n); each > uint64(len(whole))*20+64<<20 {
				t.Errorf("%d MB are allocated for a file of %d MB", each>>20, len(whole)>>20)
			}
		})
	}
}

// field is a number in a header.
type field struct{ at, size int }

func (f field) put(b []byte, value uint64) {
	switch f.size {
	case 2:
		binary.LittleEndian.PutUint16(b[f.at:], uint16(value))
	case 4:
		binary.LittleEndian.PutUint32(b[f.at:], uint32(value))
	default:
		binary.LittleEndian.PutUint64(b[f.at:], value)
	}
}

// headerFields are the fields of Elf64_Ehdr, all Elf64_Phdr and Elf64_Shdr
// (elf(5)) of a file.
func headerFields(b []byte) []field {
	var fields []field
	add := func(at int, sizes ...int) {
		for _, size := range sizes {
			fields = append(fields, field{at, size})
			at += size
		}
	}
	add(16, 2, 2, 4, 8, 8, 8, 4, 2, 2, 2, 2, 2, 2)
	phoff, shoff := int(binary.LittleEndian.Uint64(b[32:])), int(binary.LittleEndian.Uint64(b[40:]))
	for i := range int(binary.LittleEndian.Uint16(b[56:])) {
		add(phoff+i*56, 4, 4, 8, 8, 8, 8, 8, 8)
	}
	for i := range int(binary.LittleEndian.Uint16(b[60:])) {
		add(shoff+i*64, 4, 4, 8, 8, 8, 8, 4, 4, 8, 8)
	}
	return fields
}
