package uprobes

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// byteOrder both reads and appends.
type byteOrder interface {
	binary.ByteOrder
	binary.AppendByteOrder
}

// stapNoteBytes writes a note as <sys/sdt.h> does.
func stapNoteBytes(order byteOrder, is64 bool, n stapNote) []byte {
	var desc []byte
	for _, addr := range []uint64{n.location, n.base, n.semaphore} {
		if is64 {
			desc = order.AppendUint64(desc, addr)
		} else {
			desc = order.AppendUint32(desc, uint32(addr))
		}
	}
	for _, s := range []string{n.provider, n.name, n.args} {
		desc = append(append(desc, s...), 0)
	}
	return rawNote(order, "stapsdt\x00", 3, desc)
}

func rawNote(order byteOrder, owner string, kind uint32, desc []byte) []byte {
	var out []byte
	out = order.AppendUint32(out, uint32(len(owner)))
	out = order.AppendUint32(out, uint32(len(desc)))
	out = order.AppendUint32(out, kind)
	out = append(out, owner...)
	for len(out)%4 != 0 {
		out = append(out, 0)
	}
	out = append(out, desc...)
	for len(out)%4 != 0 {
		out = append(out, 0)
	}
	return out
}

func TestParseStapNotes(t *testing.T) {
	notes := []stapNote{
		{0x401000, 0x402000, 0x403000, "p", "n", "8@%rdi -4@$5"},
		{0x401001, 0, 0, "provider", "name__x", ""},
	}
	for _, order := range []byteOrder{binary.LittleEndian, binary.BigEndian} {
		for _, is64 := range []bool{true, false} {
			data := stapNoteBytes(order, is64, notes[0])
			data = append(data, rawNote(order, "GNU\x00", 3, []byte("not ours"))...)
			data = append(data, rawNote(order, "stapsdt\x00", 2, []byte("older"))...)
			data = append(data, stapNoteBytes(order, is64, notes[1])...)
			data = append(data, 0, 0, 0, 0)
			got, err := parseStapNotes(data, order, is64)
			if err != nil || len(got) != 2 || got[0] != notes[0] || got[1] != notes[1] {
				t.Errorf("%v, 64 bits %v: %+v, %v", order, is64, got, err)
			}
			// The last note may lack the padding after it.
			if got, err = parseStapNotes(bytes.TrimRight(stapNoteBytes(order, is64, notes[1]), "\x00"), order, is64); err == nil {
				t.Errorf("%v: the final NULs are missing and nobody minds: %+v", order, got)
			}
		}
	}
}

func TestParseStapNotesErrors(t *testing.T) {
	le := binary.LittleEndian
	good := stapNoteBytes(le, true, stapNote{1, 2, 3, "p", "n", "8@%rdi"})
	tests := []struct {
		name string
		data []byte
		want string
	}{
		{"cut header", append(bytes.Clone(good), 1, 2, 3), fmt.Sprintf("note at 0x%x: header is cut off", len(good))},
		{"cut content", good[:len(good)-8], "do not fit"},
		{"huge sizes", bytes.Repeat([]byte{0xff}, 12), "do not fit"},
		{"too small for addresses", rawNote(le, "stapsdt\x00", 3, make([]byte, 23)), "23 bytes are too few"},
		{"no provider", rawNote(le, "stapsdt\x00", 3, append(make([]byte, 24), "abc"...)), "string of the provider does not end"},
		{"no name", rawNote(le, "stapsdt\x00", 3, append(make([]byte, 24), "a\x00b"...)), "string of the name does not end"},
		{"no arguments", rawNote(le, "stapsdt\x00", 3, append(make([]byte, 24), "a\x00b\x00c"...)), "string of the arguments does not end"},
		{"empty name", rawNote(le, "stapsdt\x00", 3, append(make([]byte, 24), "a\x00\x00\x00"...)), "provider or name is empty"},
		{"too many", bytes.Repeat(good, maxStapProbes+1), "more than 65536 probes"},
	}
	for _, test := range tests {
		notes, err := parseStapNotes(test.data, le, true)
		if notes != nil || !errors.Is(err, ErrStapNote) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %d notes, %v; want %q", test.name, len(notes), err, test.want)
		}
	}
}

func FuzzUSDTNote(f *testing.F) {
	le := binary.LittleEndian
	f.Add(stapNoteBytes(le, true, stapNote{1, 2, 3, "p", "n", "8@%rdi -4@60(%rax)"}), true)
	f.Add(stapNoteBytes(le, false, stapNote{1, 2, 0, "p", "n", ""}), false)
	f.Add(rawNote(le, "GNU\x00", 3, []byte("xyz")), true)
	f.Add([]byte{8, 0, 0, 0, 255, 255, 255, 255, 3, 0, 0, 0}, true)
	f.Fuzz(func(t *testing.T, data []byte, is64 bool) {
		notes, err := parseStapNotes(data, le, is64)
		if err != nil {
			if notes != nil || !errors.Is(err, ErrStapNote) {
				t.Fatalf("%v with %v", err, notes)
			}
			return
		}
		var again []byte
		for _, n := range notes {
			if n.provider == "" || n.name == "" || strings.ContainsRune(n.provider+n.name+n.args, 0) {
				t.Fatalf("%+v", n)
			}
			again = append(again, stapNoteBytes(le, is64, n)...)
		}
		if len(again) > len(data)+3 {
			t.Fatalf("%d notes of %d bytes from %d bytes", len(notes), len(again), len(data))
		}
		back, err := parseStapNotes(again, le, is64)
		if err != nil || len(back) != len(notes) {
			t.Fatalf("round trip: %v, %v", back, err)
		}
		for i := range notes {
			if back[i] != notes[i] {
				t.Fatalf("round trip: %+v became %+v", notes[i], back[i])
			}
		}
	})
}

// testELF is a file with one code segment (address 0x1000, offset 0x400) and
// one data segment (address 0x3000, offset 0x800, half of it not in the file).
func testELF() *elf.File {
	return &elf.File{
		FileHeader: elf.FileHeader{Class: elf.ELFCLASS64, ByteOrder: binary.LittleEndian, Type: elf.ET_DYN, Machine: elf.EM_X86_64},
		Progs: []*elf.Prog{
			{ProgHeader: elf.ProgHeader{Type: elf.PT_LOAD, Flags: elf.PF_R | elf.PF_X, Off: 0x400, Vaddr: 0x1000, Filesz: 0x100, Memsz: 0x100}},
			{ProgHeader: elf.ProgHeader{Type: elf.PT_LOAD, Flags: elf.PF_R | elf.PF_W, Off: 0x800, Vaddr: 0x3000, Filesz: 0x80, Memsz: 0x100}},
		},
	}
}

func TestStapNoteProbe(t *testing.T) {
	tests := []struct {
		name     string
		note     stapNote
		base     uint64
		addr     uint64
		offset   uint64
		sem, ref uint64
		err      string
	}{
		{"plain", stapNote{location: 0x1010}, 0, 0x1010, 0x410, 0, 0, ""},
		{"last byte of code", stapNote{location: 0x10ff}, 0, 0x10ff, 0x4ff, 0, 0, ""},
		{"semaphore", stapNote{location: 0x1010, semaphore: 0x3010}, 0, 0x1010, 0x410, 0x3010, 0x810, ""},
		{"base where it was linked", stapNote{location: 0x1010, base: 0x2000, semaphore: 0x3010}, 0x2000, 0x1010, 0x410, 0x3010, 0x810, ""},
		{"prelinked upwards", stapNote{location: 0x10, base: 0x1000, semaphore: 0x2010}, 0x2000, 0x1010, 0x410, 0x3010, 0x810, ""},
		{"prelinked downwards", stapNote{location: 0x2010, base: 0x3000}, 0x2000, 0x1010, 0x410, 0, 0, ""},
		{"no base section", stapNote{location: 0x1010, base: 0x3000}, 0, 0x1010, 0x410, 0, 0, ""},
		{"after the code", stapNote{location: 0x1100}, 0, 0x1100, 0, 0, 0, "address 0x1100 is not in the file's code"},
		{"in data", stapNote{location: 0x3000}, 0, 0x3000, 0, 0, 0, "address 0x3000 is not in the file's code"},
		{"semaphore in code", stapNote{location: 0x1010, semaphore: 0x1010}, 0, 0x1010, 0x410, 0x1010, 0, "semaphore 0x1010 is not in the file's writable data"},
		{"semaphore beyond the file", stapNote{location: 0x1010, semaphore: 0x307f}, 0, 0x1010, 0x410, 0x307f, 0, "semaphore 0x307f is not"},
	}
	for _, test := range tests {
		test.note.provider, test.note.name = "p", "n"
		p := test.note.probe(testELF(), test.base, nil)
		if p.Addr != test.addr || p.Offset != test.offset || p.SemaphoreAddr != test.sem || p.SemaphoreOffset != test.ref {
			t.Errorf("%s: %+v", test.name, p)
		}
		if test.err == "" && p.Err != nil || test.err != "" && (p.Err == nil || !strings.Contains(p.Err.Error(), test.err)) {
			t.Errorf("%s: error %v, want %q", test.name, p.Err, test.err)
		}
	}
}

// readelfProbes has readelf's word for the probes of a file.
func readelfProbes(t *testing.T, path string) []stapNote {
	t.Helper()
	out, err := exec.Command("readelf", "-n", path).Output()
	if err != nil {
		t.Fatalf("readelf: %v", err)
	}
	var notes []stapNote
	location := regexp.MustCompile(`Location: 0x([0-9a-f]+), Base: 0x([0-9a-f]+), Semaphore: 0x([0-9a-f]+)`)
	_, section, _ := strings.Cut(string(out), "Displaying notes found in: .note.stapsdt\n")
	section, _, _ = strings.Cut(section, "Displaying notes found in:")
	for line := range strings.Lines(section) {
		line = strings.TrimSpace(line)
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch key {
		case "Provider":
			notes = append(notes, stapNote{provider: value})
		case "Name":
			notes[len(notes)-1].name = value
		case "Location":
			m := location.FindStringSubmatch(line)
			n := &notes[len(notes)-1]
			for i, field := range []*uint64{&n.location, &n.base, &n.semaphore} {
				if *field, err = strconv.ParseUint(m[i+1], 16, 64); err != nil {
					t.Fatal(err)
				}
			}
		case "Arguments":
			notes[len(notes)-1].args = value
		}
	}
	return notes
}

// systemBinaries are files with probes on a Debian system.
func systemBinaries(t *testing.T) []string {
	t.Helper()
	var found []string
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin/postgres", "/usr/bin/python3.*[0-9]", "/usr/lib/*/libpython3.*.so.1.0",
		"/usr/lib/*/libstdc++.so.6", "/usr/lib/*/libc.so.6", "/usr/lib/*/ld-linux*.so.*", "/usr/bin/*-linux-gnu-gcov-*",
	} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, paths...)
	}
	if len(found) == 0 {
		t.Skip("none of the usual files with probes is installed")
	}
	if _, err := exec.LookPath("readelf"); err != nil {
		t.Skip("no readelf to compare with")
	}
	return found
}

func TestStaticProbesAgainstReadelf(t *testing.T) {
	total := 0
	for _, path := range systemBinaries(t) {
		f, err := elf.Open(path)
		if err != nil {
			t.Logf("%s: %v", path, err) // a script, say
			continue
		}
		defer f.Close()
		want := readelfProbes(t, path)
		got, err := StaticProbes(f, nil)
		got = slices.DeleteFunc(got, func(p StaticProbe) bool { return p.Derived })
		if err != nil || len(got) != len(want) {
			t.Errorf("%s: %d probes, %v; readelf has %d", path, len(got), err, len(want))
			continue
		}
		total += len(got)
		for i, p := range got {
			w := want[i]
			if p.Err != nil {
				t.Errorf("%s: %v", path, p.Err)
			}
			if p.Provider != w.provider || p.Name != w.name || p.Addr != w.location || p.SemaphoreAddr != w.semaphore || p.RawArgs != w.args {
				t.Errorf("%s: %+v, readelf has %+v", path, p, w)
			}
			if (p.SemaphoreOffset != 0) != (w.semaphore != 0) {
				t.Errorf("%s: %s: semaphore at file offset 0x%x", path, p.ID(), p.SemaphoreOffset)
			}
			checkNop(t, path, p)
			if n := len(strings.Fields(w.args)); len(p.Args) != n {
				t.Errorf("%s: %s: %d arguments of %q", path, p.ID(), len(p.Args), w.args)
			}
			for _, a := range p.Args {
				if a.Err != nil {
					t.Errorf("%s: %s: %v", path, p.ID(), a.Err)
				}
			}
		}
	}
	t.Logf("%d probes", total)
	if total == 0 {
		t.Skip("no file here has probes")
	}
}

// checkNop makes sure that the file has a nop where the probe is said to be.
func checkNop(t *testing.T, path string, p StaticProbe) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var code [4]byte
	if _, err := f.ReadAt(code[:], int64(p.Offset)); err != nil {
		t.Fatal(err)
	}
	if code[0] != 0x90 && !bytes.Equal(code[:], []byte{0x1f, 0x20, 0x03, 0xd5}) {
		t.Errorf("%s: %s: bytes % x at offset 0x%x are no nop", path, p.ID(), code, p.Offset)
	}
}
