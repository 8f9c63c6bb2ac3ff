package symbolizer

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// addr2line asks binutils for the frames at addresses, innermost first.
func addr2line(t testing.TB, path string, addrs []uint64) [][]Frame {
	t.Helper()
	need(t, "addr2line")
	cmd := exec.Command("addr2line", "-afiC", "-e", path)
	var in strings.Builder
	for _, a := range addrs {
		fmt.Fprintf(&in, "%#x\n", a)
	}
	cmd.Stdin = strings.NewReader(in.String())
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", cmd, err)
	}
	var all [][]Frame
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	for i := 0; i < len(lines); {
		if strings.HasPrefix(lines[i], "0x") {
			all = append(all, nil)
			i++
			continue
		}
		place, _, _ := strings.Cut(lines[i+1], " (discriminator")
		file, number, _ := cutLast(place, ":")
		line, _ := strconv.Atoi(number)
		if file == "??" {
			file = ""
		}
		all[len(all)-1] = append(all[len(all)-1], Frame{Function: lines[i], File: file, Line: line})
		i += 2
	}
	if len(all) != len(addrs) {
		t.Fatalf("addr2line answers %d of %d addresses", len(all), len(addrs))
	}
	return all
}

// TestLinesAgreeWithAddr2line compares file, line and inlining of every byte of
// our own functions, for each DWARF version and packing.
func TestLinesAgreeWithAddr2line(t *testing.T) {
	for name, flags := range map[string][]string{
		"dwarf5":     {"-gdwarf-5"},
		"dwarf4":     {"-gdwarf-4"},
		"dwarf3":     {"-gdwarf-3", "-gstrict-dwarf"},
		"dwarf64":    {"-gdwarf-5", "-gdwarf64"},
		"compressed": {"-g", "-gz=zlib"},
		"gnu packed": {"-g", "-gz=zlib-gnu"},
		"sections":   {"-g", "-ffunction-sections", "-fno-omit-frame-pointer"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, source := range []string{"funcs.c", "names.cc"} {
				path := compile(t, source, flags...)
				truth := path
				if name == "dwarf64" || name == "gnu packed" {
					// addr2line cannot read these, but the code is that of another build.
					truth = compile(t, source, "-gdwarf-5")
				}
				compareLines(t, open(t, path, Options{NoDebugFiles: true}), truth, source)
			}
		})
	}
}

func compareLines(t *testing.T, b *Binary, truth, source string) {
	t.Helper()
	if err := b.LineInfo(); err != nil {
		t.Fatal(err)
	}
	var addrs []uint64
	for _, f := range functions(t, b) {
		if file, _ := b.Line(f.Addr); filepath.Base(file) != source {
			continue
		}
		for a := f.Addr; a < f.Addr+f.Size; a++ {
			addrs = append(addrs, a)
		}
	}
	if len(addrs) < 200 {
		t.Fatalf("only %d addresses of %s have lines", len(addrs), source)
	}
	inlined, wrong := 0, 0
	for i, want := range addr2line(t, truth, addrs) {
		got := b.Inlines(addrs[i])
		if len(want) > 1 {
			inlined++
		}
		same := len(got) == len(want)
		for j := range got {
			if same && (got[j].Line != want[j].Line || filepath.Clean(got[j].File) != filepath.Clean(want[j].File) || got[j].Inlined != (j < len(got)-1)) {
				same = false
			}
			// binutils names C++ functions with parameters.
			if same && source == "funcs.c" && got[j].Inlined && got[j].Function != want[j].Function {
				same = false
			}
		}
		if !same {
			if wrong++; wrong <= 5 {
				t.Errorf("%s: %#x is\n%+v, addr2line says\n%+v", source, addrs[i], got, want)
			}
		}
	}
	if wrong > 0 {
		t.Errorf("%s: %d of %d addresses differ", source, wrong, len(addrs))
	}
	if inlined == 0 {
		t.Errorf("%s: no inlined code was compared", source)
	}
}

func TestInlinedAt(t *testing.T) {
	b := open(t, compile(t, "funcs.c", "-g", "-pie", "-fPIE"), Options{})
	sites, err := b.InlinedAt(func(name string) bool { return name == "leaf" || name == "stem" })
	if err != nil {
		t.Fatal(err)
	}
	root := byName(t, b, "root")
	main := byName(t, b, "main")
	found := make(map[string]bool)
	for _, s := range sites {
		in := "elsewhere"
		switch {
		case s.Addr >= root.Addr && s.Addr < root.Addr+root.Size:
			in = "root"
		case s.Addr >= main.Addr && s.Addr < main.Addr+main.Size:
			in = "main" // root itself may be inlined there
		}
		found[s.Function+" into "+s.Caller+" in "+in] = true
		if filepath.Base(s.File) != "funcs.c" || s.Line == 0 {
			t.Errorf("%+v has no place", s)
		}
	}
	for _, want := range []string{"leaf into stem in root", "stem into root in root"} {
		if !found[want] {
			t.Errorf("missing: %s; found %v", want, found)
		}
	}
	if !slices.IsSortedFunc(sites, func(a, b InlineSite) int { return int(int64(a.Addr - b.Addr)) }) {
		t.Error("the sites are not sorted by address")
	}
	for _, f := range functions(t, b) {
		if f.Name == "leaf" || f.Name == "stem" {
			t.Errorf("%s has code of its own", f.Name)
		}
	}

	cpp := open(t, compile(t, "names.cc", "-g"), Options{NoDebugFiles: true})
	sites, err = cpp.InlinedAt(func(name string) bool { return strings.HasPrefix(name, "std::") })
	if err != nil || len(sites) == 0 {
		t.Errorf("%d inlined functions of the standard library, %v", len(sites), err)
	}
}

func TestNoDebugInfo(t *testing.T) {
	b := open(t, derive(t, compile(t, "funcs.c", "-g", "-pie", "-fPIE"), "stripped", "strip", "-o", "OUT", "IN"), Options{NoDebugFiles: true})
	if err := b.LineInfo(); !errors.Is(err, ErrNoDebugInfo) {
		t.Errorf("LineInfo = %v", err)
	}
	if sites, err := b.InlinedAt(func(string) bool { return true }); len(sites) != 0 || err != nil {
		t.Errorf("InlinedAt = %v, %v", sites, err)
	}
	funcs := functions(t, b)
	for addr := range funcs {
		if file, line := b.Line(addr); file != "" || line != 0 {
			t.Errorf("%#x is at %s:%d", addr, file, line)
		}
		if frames := b.Inlines(addr); len(frames) != 1 || frames[0].Inlined {
			t.Errorf("frames at %#x: %v", addr, frames)
		}
	}
}

// TestInflateOld: the size in an old compressed section's header is a claim.
func TestInflateOld(t *testing.T) {
	var packed bytes.Buffer
	w := zlib.NewWriter(&packed)
	w.Write(make([]byte, 1<<20))
	w.Close()
	section := func(size uint64) []byte {
		return append(binary.BigEndian.AppendUint64([]byte("ZLIB"), size), packed.Bytes()...)
	}
	if data, err := inflateOld(section(1<<20), 2<<20); err != nil || len(data) != 1<<20 {
		t.Errorf("%d bytes, %v", len(data), err)
	}
	if data, err := inflateOld(section(1000), 2<<20); err != nil || len(data) != 1000 {
		t.Errorf("with a smaller claim %d bytes, %v", len(data), err)
	}
	for name, data := range map[string][]byte{
		"beyond limit": section(1 << 40), "no magic": []byte("XLIB00000000000"), "short": []byte("ZLIB"), "no stream": []byte("ZLIB\x00\x00\x00\x00\x00\x00\x00\x10abc"),
	} {
		if data, err := inflateOld(data, 2<<20); err == nil || data != nil {
			t.Errorf("%s: %d bytes, %v", name, len(data), err)
		}
	}
}

// TestSharedDebugFile: names that dwz moved to a file of their own are found, and
// their absence costs only them.
func TestSharedDebugFile(t *testing.T) {
	check := func(path string, leaf, stem string) {
		t.Helper()
		b := open(t, path, Options{NoDebugFiles: true})
		entry := byName(t, b, "entry_one")
		deepest := []Frame(nil)
		for a := entry.Addr; a < entry.Addr+entry.Size; a++ {
			if frames := b.Inlines(a); len(frames) > len(deepest) {
				deepest = frames
			}
		}
		if len(deepest) != 3 || deepest[0].Function != leaf || deepest[1].Function != stem || deepest[2].Function != "entry_one" {
			t.Fatalf("frames are %+v", deepest)
		}
		for i, line := range []int{3, 5, 6} {
			if filepath.Base(deepest[i].File) != "a.c" || deepest[i].Line != line {
				t.Errorf("frame %d is at %s:%d, want line %d", i, deepest[i].File, deepest[i].Line, line)
			}
		}
	}
	check("testdata/dwz/libone.so", "shared_leaf", "shared_stem")
	alone := filepath.Join(t.TempDir(), "libone.so")
	copyFile(t, "testdata/dwz/libone.so", alone)
	check(alone, "", "")
	// Another file of that name is not taken for it.
	copyFile(t, "testdata/elf/dwarf5.so", filepath.Join(filepath.Dir(alone), "shared.debug"))
	check(alone, "", "")
}
