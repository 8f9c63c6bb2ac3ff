package symbolizer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// exercise calls everything that reads a file's tables. Whatever the file is, it
// must not panic, and what it returns must hold together.
func exercise(t testing.TB, data []byte) {
	b, err := Options{NoDebugFiles: true}.NewBinary(bytes.NewReader(data), int64(len(data)), "fuzzed")
	if (b == nil) == (err == nil) {
		t.Fatalf("binary %v and error %v", b, err)
	}
	if err != nil {
		if !errors.Is(err, ErrNotELF) && !errors.Is(err, ErrMalformed) {
			t.Fatalf("unexpected kind of error: %v", err)
		}
		return
	}
	defer b.Close()
	b.HasUnwinder()
	b.Needed()
	b.LineInfo()
	funcs, _ := b.Functions()
	for i := range funcs {
		f := &funcs[i]
		if f.Name == "" || i > 0 && funcs[i-1].Addr >= f.Addr {
			t.Fatalf("function %d of %d: %+v", i, len(funcs), f)
		}
		if f.Addr+f.Size < f.Addr {
			t.Fatalf("function wraps around: %+v", f)
		}
		if i%16 != 0 && len(funcs) > 64 {
			continue
		}
		if fn, off := b.Lookup(f.Addr); fn == nil || fn.Addr+off != f.Addr {
			t.Fatalf("Lookup(%#x) = %+v, %d", f.Addr, fn, off)
		}
		if code, err := b.Code(f); err == nil && uint64(len(code)) != f.Size {
			t.Fatalf("%d bytes of code of %+v", len(code), f)
		}
		b.Line(f.Addr)
		b.Inlines(f.Addr + f.Size/2)
	}
	sites, _ := b.InlinedAt(func(string) bool { return true })
	if len(sites) > maxInlineSites {
		t.Fatalf("%d inlined calls", len(sites))
	}
}

func FuzzBinary(f *testing.F) {
	seeds, err := filepath.Glob("testdata/elf/*")
	if err != nil || len(seeds) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, path := range seeds {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) { exercise(t, data) })
}

func FuzzEHFrame(f *testing.F) {
	f.Add([]byte("\x14\x00\x00\x00\x00\x00\x00\x00\x01zR\x00\x01x\x10\x01\x1b\x0c\x07\x08\x90\x01\x00\x00\x14\x00\x00\x00\x1c\x00\x00\x00\xd0\xef\xff\xff\x26\x00\x00\x00\x00D\x07\x10\x00\x00\x00\x00\x00\x00\x00\x00"), uint64(0x2000), true)
	f.Add([]byte("\x00\x00\x00\x00"), uint64(0), false)
	f.Fuzz(func(t *testing.T, data []byte, addr uint64, big bool) {
		layout := EHFrameLayout{Addr: addr, Order: binary.LittleEndian, PointerSize: 8, TextBase: addr / 2, DataBase: addr / 3}
		if big {
			layout.Order, layout.PointerSize = binary.BigEndian, 4
		}
		frames, err := ParseEHFrame(data, layout)
		if err != nil && !errors.Is(err, ErrMalformed) {
			t.Fatalf("unexpected kind of error: %v", err)
		}
		for i := range frames {
			if f := &frames[i]; f.CIE == nil || f.Size == 0 || f.Start+f.Size <= f.Start {
				t.Fatalf("entry %+v", f)
			}
			frames[i].startsInside()
		}
	})
}

func FuzzMaps(f *testing.F) {
	f.Add([]byte("55d0c8a28000-55d0c8a80000 r-xp 00028000 fe:01 1234                       /usr/bin/prog\n"))
	f.Add([]byte("7f0000000000-7f0000001000 r-xp 00000000 103:1a 99 /tmp/with\\012space (deleted)\nffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		maps, err := ParseMaps(bytes.NewReader(data))
		if err != nil {
			if maps != nil || !errors.Is(err, ErrMalformed) {
				t.Fatalf("%v and error %v", maps, err)
			}
			return
		}
		for _, m := range maps {
			if m.End <= m.Start || m.Deleted && !m.IsFile() {
				t.Fatalf("mapping %+v", m)
			}
		}
	})
}

func FuzzDemangle(f *testing.F) {
	for _, s := range []string{"_ZN5outer5inner3BoxIiE3getEv", "_RINvCs4T4zK9Otvt5_5names4showhEB2_", "_ZN4core3fmt9Formatter3pad17h0123456789abcdefE.llvm.1", "_ZNKSt3fooC1Ev.cold"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, symbol string) {
		if len(symbol) > maxSymbolName {
			return
		}
		name := Demangle(symbol)
		if (name == "") != (symbol == "") {
			t.Fatalf("Demangle(%q) = %q", symbol, name)
		}
		demangleFull(symbol)
		goName(symbol)
		goPackage(symbol)
		language(symbol)
	})
}

func FuzzMiniDebug(f *testing.F) {
	f.Add([]byte("\xfd7zXZ\x00\x00\x01\x69\x22\xde\x36\x02\x00\x21\x01\x16\x00\x00\x00\x74\x2f\xe5\xa3\x01\x00\x02abc\x00\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		size, dict, err := xzExtent(data)
		if err != nil && (size != 0 || dict != 0 || !errors.Is(err, ErrMalformed)) {
			t.Fatalf("%d, %d and error %v", size, dict, err)
		}
	})
}

// TestDamagedFiles truncates real programs at many lengths and overwrites bytes
// all over their headers and tables.
func TestDamagedFiles(t *testing.T) {
	paths := []string{
		compile(t, "funcs.c", "-g", "-pie", "-fPIE"),
		compile(t, "names.cc", "-g"),
		goBuild(t, "pie stripped"),
		goBuild(t, "plain"),
	}
	seeds, err := filepath.Glob("testdata/elf/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(paths, seeds...) {
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		exercise(t, whole)
		steps := 60
		if len(whole) > 1<<20 || testing.Short() {
			steps = 12
		}
		for i := range steps {
			exercise(t, whole[:len(whole)*i/steps])
		}
		for i := range steps {
			damaged := bytes.Clone(whole)
			for at := i; at < len(damaged); at += 61 + 7*i {
				if at < 64 && i%2 == 0 {
					continue // keep the header
				}
				damaged[at] ^= byte(1 << (i % 8))
			}
			exercise(t, damaged)
		}
		// Section and program headers that claim the largest values.
		for at := 0; at+8 <= len(whole); at += 1 + len(whole)/steps {
			damaged := bytes.Clone(whole)
			copy(damaged[at&^7:], "\xff\xff\xff\xff\xff\xff\xff\x7f")
			exercise(t, damaged)
		}
		headers := int(binary.LittleEndian.Uint64(whole[40:]))
		for at := headers; at+8 <= len(whole) && at < headers+64*40; at += 8 {
			damaged := bytes.Clone(whole)
			copy(damaged[at:], "\xff\xff\xff\xff\xff\xff\xff\x7f")
			if len(whole) < 1<<20 {
				exercise(t, damaged)
			}
		}
	}
}
