package symbolizer

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// linkings are the ways to link an executable.
var linkings = map[string][]string{
	"pie":             {"-pie", "-fPIE"},
	"no-pie":          {"-no-pie", "-fno-pie"},
	"static":          {"-static"},
	"static-pie":      {"-static-pie", "-fPIE"},
	"separate-code":   {"-Wl,-z,separate-code", "-Wl,--build-id=sha1"},
	"noseparate-code": {"-Wl,-z,noseparate-code"},
}

// TestFunctionsAgreeWithNM compares all functions with what nm prints.
func TestFunctionsAgreeWithNM(t *testing.T) {
	for name, flags := range linkings {
		t.Run(name, func(t *testing.T) {
			path := compile(t, "funcs.c", append([]string{"-g"}, flags...)...)
			b := open(t, path, Options{NoDebugFiles: true})
			compareWithNM(t, b, []string{"nm"}, path)
			compareBytes(t, b, path)
		})
	}
}

// compareWithNM checks that every function of nm is one of b's, by address and
// name, and that every named function of b is one of nm's.
func compareWithNM(t *testing.T, b *Binary, command []string, nmPath string) {
	t.Helper()
	funcs := functions(t, b)
	truth := make(map[uint64][]string)
	checked := 0
	for _, s := range nm(t, command, nmPath) {
		name, _, _ := strings.Cut(s.name, "@")
		truth[s.addr] = append(truth[s.addr], name)
		if !strings.ContainsRune("TtWi", rune(s.kind)) || name == "inner_label" || name == "data_start" || isGoTextMark(name) {
			continue
		}
		f, ok := funcs[s.addr]
		if !ok {
			t.Errorf("nm has %s at %#x, Functions has nothing there", name, s.addr)
			continue
		}
		if f.Symbol != name && !slices.Contains(f.Aliases, name) {
			t.Errorf("nm has %s at %#x, Functions has %s, also called %q", name, s.addr, f.Symbol, f.Aliases)
		}
		if fn, off := b.Lookup(s.addr); fn == nil || fn.Addr != s.addr || off != 0 {
			t.Errorf("Lookup(%#x) = %v + %d, want %s", s.addr, fn, off, name)
		}
		checked++
	}
	if checked < 10 {
		t.Fatalf("only %d functions compared", checked)
	}
	for _, f := range funcs {
		if f.Source == SourceUnwindTable {
			continue
		}
		for _, name := range append([]string{f.Symbol}, f.Aliases...) {
			if !slices.Contains(truth[f.Addr], name) {
				t.Errorf("Functions has %s at %#x, nm has %q there", name, f.Addr, truth[f.Addr])
			}
		}
	}
}

// compareBytes checks that Offset and Code lead to the bytes that the section
// headers say are at the address.
func compareBytes(t *testing.T, b *Binary, path string) {
	t.Helper()
	ef, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ef.Close()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for addr, f := range functions(t, b) {
		i := slices.IndexFunc(ef.Sections, func(s *elf.Section) bool {
			return s.Flags&elf.SHF_EXECINSTR != 0 && addr >= s.Addr && addr < s.Addr+s.Size
		})
		if i < 0 {
			t.Errorf("%s at %#x is in no code section", f.Name, addr)
			continue
		}
		s := ef.Sections[i]
		if f.Size == 0 || addr+f.Size > s.Addr+s.Size {
			t.Errorf("%s at %#x has size %d in a section that ends at %#x", f.Name, addr, f.Size, s.Addr+s.Size)
			continue
		}
		want := make([]byte, f.Size)
		if _, err := s.ReadAt(want, int64(addr-s.Addr)); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, f.Size)
		if _, err := file.ReadAt(got, int64(f.Offset)); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		code, err := b.Code(&f)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) || !bytes.Equal(code, want) {
			t.Errorf("%s: bytes at offset %#x differ from those at address %#x", f.Name, f.Offset, addr)
		}
		if back, ok := b.OffsetToAddr(f.Offset); !ok || back != addr {
			t.Errorf("OffsetToAddr(%#x) = %#x, %v, want %#x", f.Offset, back, ok, addr)
		}
	}
}

func TestFunctionDetails(t *testing.T) {
	b := open(t, compile(t, "funcs.c", "-g", "-pie", "-fPIE"), Options{})

	original := byName(t, b, "original")
	if want := []string{"__original", "weak_original"}; !slices.Equal(original.Aliases, want) {
		t.Errorf("aliases of original are %q, want %q", original.Aliases, want)
	}
	if f := byName(t, b, "chosen"); !f.IFunc || !slices.Equal(f.Aliases, []string{"pick"}) {
		t.Errorf("chosen is %+v, want an IFUNC with alias pick", f)
	}
	if f := byName(t, b, "split.cold"); !f.Fragment {
		t.Error("split.cold is not marked as a fragment")
	}
	if f := byName(t, b, "split"); f.Fragment || f.IFunc || f.ABI0 || f.Lang != LangC || f.Source != SourceSymtab {
		t.Errorf("split is %+v", f)
	}
	// The size of the symbol covers a label, which is no function.
	if f := byName(t, b, "asm_sized"); f.Size != 5 {
		t.Errorf("asm_sized has size %d, want 5", f.Size)
	}
	// From the unwind entry.
	if f := byName(t, b, "asm_unsized"); f.Size != 4 {
		t.Errorf("asm_unsized has size %d, want 4", f.Size)
	}
	// Up to the next function.
	if f := byName(t, b, "asm_label"); f.Lang != LangAsm || f.Size < 4 || f.Size > 16 {
		t.Errorf("asm_label is %+v", f)
	}
	if fn, off := b.Lookup(byName(t, b, "split").Addr + 7); fn == nil || fn.Name != "split" || off != 7 {
		t.Errorf("split+7 is %v+%d", fn, off)
	}
	if fn, _ := b.Lookup(1); fn != nil {
		t.Errorf("address 1 is in %s", fn.Name)
	}
}

// TestStripped: without .symtab, the exported functions have their names and the
// others are found by their unwind entries, every one of them.
func TestStripped(t *testing.T) {
	for name, flags := range linkings {
		t.Run(name, func(t *testing.T) {
			whole := compile(t, "funcs.c", append([]string{"-g"}, flags...)...)
			full := functions(t, open(t, whole, Options{NoDebugFiles: true}))
			path := derive(t, whole, "stripped", "strip", "-o", "OUT", "IN")
			b := open(t, path, Options{NoDebugFiles: true})
			funcs := functions(t, b)
			compareBytes(t, b, path)
			for _, want := range full {
				if !slices.Contains([]string{"plain", "hidden_static", "original", "split", "split.cold", "root", "main", "asm_unsized"}, want.Symbol) {
					continue
				}
				got, ok := funcs[want.Addr]
				if !ok {
					t.Errorf("%s at %#x is not found in the stripped file", want.Name, want.Addr)
					continue
				}
				if got.Source != SourceUnwindTable || got.Fragment != want.Fragment || got.Size != want.Size {
					t.Errorf("%s: stripped %+v, whole %+v", want.Name, got, want)
				}
				if name := fmt.Sprintf("prog+%#x", want.Addr-b.base()); got.Name != name {
					t.Errorf("%s is called %s in the stripped file, want %s", want.Name, got.Name, name)
				}
			}
		})
	}
}

// TestDynsym: a stripped library has the names that it exports.
func TestDynsym(t *testing.T) {
	lib := compile(t, "funcs.c", "-shared", "-fPIC")
	b := open(t, derive(t, lib, "stripped", "strip", "-o", "OUT", "IN"), Options{NoDebugFiles: true})
	for _, name := range []string{"plain", "root", "asm_sized", "original"} {
		if f := byName(t, b, name); f.Source != SourceDynsym {
			t.Errorf("%s comes from %s", name, f.Source)
		}
	}
	if b.Interp != "" || !b.PIE {
		t.Errorf("library: interpreter %q, PIE %v", b.Interp, b.PIE)
	}
}

// TestNoSectionHeaders: what the loader needs is enough.
func TestNoSectionHeaders(t *testing.T) {
	lib := compile(t, "funcs.c", "-shared", "-fPIC")
	whole := open(t, lib, Options{})
	data, err := os.ReadFile(lib)
	if err != nil {
		t.Fatal(err)
	}
	// e_shoff, e_shnum and e_shstrndx of a 64-bit header.
	clear(data[40:48])
	clear(data[60:64])
	path := filepath.Join(t.TempDir(), "lib.so")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	b := open(t, path, Options{})
	for _, name := range []string{"plain", "root", "original"} {
		got, want := byName(t, b, name), byName(t, whole, name)
		if got.Addr != want.Addr || got.Size != want.Size || got.Source != SourceDynsym {
			t.Errorf("%s is %+v, want %+v", name, got, want)
		}
	}
	if want := byName(t, whole, "hidden_static"); functions(t, b)[want.Addr].Source != SourceUnwindTable {
		t.Errorf("hidden_static is not found by its unwind entry")
	}
	if !slices.Equal(b.Needed(), whole.Needed()) || len(b.Needed()) == 0 {
		t.Errorf("needs %q, want %q", b.Needed(), whole.Needed())
	}
	if b.BuildID == "" || b.BuildID != whole.BuildID {
		t.Errorf("build id %q, want %q", b.BuildID, whole.BuildID)
	}
}

func TestMetadata(t *testing.T) {
	need(t, "readelf")
	for name, flags := range linkings {
		t.Run(name, func(t *testing.T) {
			path := compile(t, "funcs.c", append([]string{"-g"}, flags...)...)
			b := open(t, path, Options{})
			notes := mustRun(t, "readelf", "-nW", path)
			if b.BuildID == "" || !strings.Contains(notes, "Build ID: "+b.BuildID) {
				t.Errorf("build id %q is not in\n%s", b.BuildID, notes)
			}
			headers := mustRun(t, "readelf", "-hlW", path)
			if pie := strings.Contains(headers, "DYN (Position-Independent Executable file)") || strings.Contains(headers, "DYN (Shared object file)"); b.PIE != pie {
				t.Errorf("PIE = %v, readelf says\n%s", b.PIE, headers)
			}
			static := strings.HasPrefix(name, "static")
			if static != (b.Interp == "") || !static && !strings.Contains(headers, b.Interp+"]") {
				t.Errorf("interpreter %q, readelf says\n%s", b.Interp, headers)
			}
			if static != (len(b.Needed()) == 0) || !static && !slices.Contains(b.Needed(), "libc.so.6") {
				t.Errorf("needs %q", b.Needed())
			}
			if b.Arch != nativeMachine() || b.GoVersion != "" || b.IsGo() {
				t.Errorf("machine %s, Go %q", b.Arch, b.GoVersion)
			}
			// A static program carries libc's unwinder.
			if b.HasUnwinder() != static {
				t.Errorf("HasUnwinder = %v", b.HasUnwinder())
			}
		})
	}
	if b := open(t, compile(t, "names.cc"), Options{}); !b.HasUnwinder() {
		t.Error("a C++ program has no unwinder")
	}
}

func nativeMachine() elf.Machine {
	self, err := elf.Open("/proc/self/exe")
	if err != nil {
		return elf.EM_NONE
	}
	defer self.Close()
	return self.Machine
}

func TestCodeLimits(t *testing.T) {
	b := open(t, compile(t, "funcs.c", "-g", "-pie", "-fPIE"), Options{})
	for name, f := range map[string]Function{
		"unknown size":         {Addr: byName(t, b, "plain").Addr},
		"beyond the limit":     {Addr: byName(t, b, "plain").Addr, Size: maxCode + 1},
		"beyond the segment":   {Addr: byName(t, b, "plain").Addr, Size: 1 << 20},
		"address out of range": {Addr: 1 << 40, Size: 4},
	} {
		if code, err := b.Code(&f); err == nil || code != nil {
			t.Errorf("%s: %d bytes, error %v", name, len(code), err)
		}
	}
}

// TestConcurrentUse: the lazily read tables are read once, whoever asks first.
func TestConcurrentUse(t *testing.T) {
	for _, path := range []string{compile(t, "names.cc", "-g"), goBuild(t, "plain")} {
		b := open(t, path, Options{NoDebugFiles: true})
		var wg sync.WaitGroup
		counts := make([]int, 8)
		for i := range counts {
			wg.Go(func() {
				b.HasUnwinder()
				funcs, _ := b.Functions()
				counts[i] = len(funcs)
				for j := i; j < len(funcs); j += 50 {
					b.Lookup(funcs[j].Addr)
					b.Line(funcs[j].Addr)
					b.Inlines(funcs[j].Addr)
				}
				b.InlinedAt(func(name string) bool { return name == "main.inner" })
			})
		}
		wg.Wait()
		for _, n := range counts {
			if n == 0 || n != counts[0] {
				t.Errorf("%s: numbers of functions differ: %v", path, counts)
			}
		}
	}
}
