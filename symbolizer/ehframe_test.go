package symbolizer

import (
	"bufio"
	"encoding/binary"
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var readelfFDE = regexp.MustCompile(` FDE .* pc=([0-9a-f]+)\.\.([0-9a-f]+)`)

// TestFramesAgreeWithReadelf compares all unwind entries of programs, and of the
// libraries that every process maps, with what readelf prints.
func TestFramesAgreeWithReadelf(t *testing.T) {
	need(t, "readelf")
	paths := []string{
		compile(t, "funcs.c", "-g", "-pie", "-fPIE"), compile(t, "funcs.c", "-g", "-static"), compile(t, "names.cc", "-g"),
		needFile(t, "/usr/lib/*-linux-gnu/libc.so.6"), needFile(t, "/usr/lib/*-linux-gnu/libstdc++.so.6"),
	}
	for _, path := range paths {
		b := open(t, path, Options{NoDebugFiles: true})
		frames, err := b.Frames()
		if err != nil {
			t.Fatal(err)
		}
		var got, want [][2]uint64
		for _, f := range frames {
			got = append(got, [2]uint64{f.Start, f.Start + f.Size})
		}
		// Only .eh_frame: .debug_frame comes in a section of its own.
		out := mustRun(t, "readelf", "-wfN", "-W", path)
		inEHFrame := false
		lines := bufio.NewScanner(strings.NewReader(out))
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), "Contents of the ") {
				inEHFrame = strings.Contains(lines.Text(), ".eh_frame ")
			}
			m := readelfFDE.FindStringSubmatch(lines.Text())
			if m == nil || !inEHFrame {
				continue
			}
			start, _ := strconv.ParseUint(m[1], 16, 64)
			end, _ := strconv.ParseUint(m[2], 16, 64)
			want = append(want, [2]uint64{start, end})
		}
		if len(want) < 10 || !slices.Equal(got, want) {
			t.Errorf("%s: %d entries, readelf has %d", path, len(got), len(want))
		}
	}
}

// ehEntries assembles an .eh_frame section from the bodies of its entries.
func ehEntries(bodies ...[]byte) []byte {
	var out []byte
	for _, body := range bodies {
		out = binary.LittleEndian.AppendUint32(out, uint32(len(body)))
		out = append(out, body...)
	}
	return append(out, 0, 0, 0, 0)
}

func TestParseEHFrame(t *testing.T) {
	layout := EHFrameLayout{Addr: 0x10000, Order: binary.LittleEndian, PointerSize: 8}
	cie := func(augmentation string, data ...byte) []byte {
		b := append([]byte{0, 0, 0, 0, 1}, augmentation...)
		b = append(b, 0, 1, 0x78, 16) // code align 1, data align -8, return address in 16
		if augmentation != "" {
			b = append(b, byte(len(data)))
			b = append(b, data...)
		}
		return append(b, cfaDefCFA, 7, 8, cfaNop)
	}
	absolute := cie("")
	fde := func(cie []byte, rest ...byte) []byte {
		// The CIE is the first entry; the id counts back from its own place.
		b := binary.LittleEndian.AppendUint32(nil, uint32(len(cie)+4+4))
		return append(b, rest...)
	}
	u64 := func(values ...uint64) (out []byte) {
		for _, v := range values {
			out = binary.LittleEndian.AppendUint64(out, v)
		}
		return out
	}

	frames, err := ParseEHFrame(ehEntries(absolute, fde(absolute, u64(0x1000, 0x20)...)), layout)
	if err != nil || len(frames) != 1 || frames[0].Start != 0x1000 || frames[0].Size != 0x20 || frames[0].LSDA != 0 {
		t.Fatalf("absolute pointers: %+v, %v", frames, err)
	}
	if c := frames[0].CIE; c.DataAlign != -8 || c.CodeAlign != 1 || c.ReturnReg != 16 || string(c.Instructions) != "\x0c\x07\x08\x00" {
		t.Errorf("CIE %+v", c)
	}

	// pcrel|sdata4 pointers, personality, LSDA, signal frame.
	full := cie("zPLRS", pePcrel|peSdata4|peIndirect, 0x10, 0, 0, 0, pePcrel|peSdata4, pePcrel|peSdata4)
	body := fde(full, 0, 0, 0, 0, 0x30, 0, 0, 0, 4, 0x40, 0, 0, 0, cfaNop)
	start := int32(0x2000 - (0x10000 + 4 + len(full) + 4 + 4))
	binary.LittleEndian.PutUint32(body[4:], uint32(start))
	frames, err = ParseEHFrame(ehEntries(full, body), layout)
	if err != nil || len(frames) != 1 || frames[0].Start != 0x2000 || frames[0].Size != 0x30 {
		t.Fatalf("relative pointers: %+v, %v", frames, err)
	}
	lsdaPlace := uint64(0x10000 + 4 + len(full) + 4 + 4 + 4 + 4 + 1)
	if f := frames[0]; f.LSDA != lsdaPlace+0x40 || !f.CIE.SignalFrame || !f.startsInside() {
		t.Errorf("FDE %+v, CIE %+v", f, f.CIE)
	}
	personality := strings.IndexByte(string(full), pePcrel|peSdata4|peIndirect) + 1
	if p := frames[0].CIE.Personality; p != uint64(0x10000+4+personality+0x10) {
		t.Errorf("personality at %#x", p)
	}

	for name, data := range map[string][]byte{
		"truncated length":      {1, 0, 0},
		"length beyond the end": {200, 0, 0, 0, 0, 0, 0, 0},
		"id before the section": ehEntries([]byte{0xff, 0xff, 0, 0}),
		"FDE of an FDE":         ehEntries(absolute, append([]byte{4, 0, 0, 0}, u64(1, 1)...)),
		"CIE version 9":         ehEntries([]byte{0, 0, 0, 0, 9, 0, 1, 1, 1}),
		"truncated FDE":         ehEntries(absolute, fde(absolute, 1, 2, 3)),
		"unterminated string":   ehEntries([]byte{0, 0, 0, 0, 1, 'z', 'R'}),
		"unknown augmentation":  ehEntries([]byte{0, 0, 0, 0, 1, 'q', 0, 1, 1, 1}),
		"unknown encoding":      ehEntries(cie("zR", 0x0f), fde(cie("zR", 0x0f), u64(1, 1)...)),
	} {
		if frames, err := ParseEHFrame(data, layout); !errors.Is(err, ErrMalformed) || len(frames) != 0 {
			t.Errorf("%s: %v, %v", name, frames, err)
		}
	}
	// What comes before a fault is kept.
	good := ehEntries(absolute, fde(absolute, u64(0x1000, 0x20)...))
	if frames, err := ParseEHFrame(append(good[:len(good)-4], 1, 0, 0), layout); !errors.Is(err, ErrMalformed) || len(frames) != 1 {
		t.Errorf("before a fault: %v, %v", frames, err)
	}
	if _, err := ParseEHFrame(good, EHFrameLayout{PointerSize: 3, Order: binary.LittleEndian}); !errors.Is(err, ErrMalformed) {
		t.Errorf("pointers of 3 bytes: %v", err)
	}
}

func TestStartsInside(t *testing.T) {
	for name, c := range map[string]struct {
		instructions []byte
		want         bool
	}{
		"nothing":                  {nil, false},
		"function":                 {[]byte{cfaAdvanceLoc | 1, cfaDefCFAOffset, 16}, false},
		"cold part":                {[]byte{cfaDefCFAOffset, 48, cfaAdvanceLoc | 4, cfaDefCFAOffset, 8}, true},
		"cold part by rbp":         {[]byte{cfaOffset | 6, 2, cfaDefCFA, 6, 16}, true},
		"_start":                   {[]byte{cfaAdvanceLoc | 4, cfaUndefined, 16}, false},
		"outermost from the start": {[]byte{cfaUndefined, 16, cfaAdvanceLoc | 4, cfaDefCFAOffset, 16}, false},
		"expression":               {[]byte{cfaExpression, 3, 2, 0x77, 0x00, cfaDefCFAExpression, 1, 0}, true},
		"truncated":                {[]byte{cfaExpression, 3, 200}, false},
		"far advance":              {[]byte{0x03, 1, 0, cfaDefCFAOffset, 16}, false},
	} {
		f := FDE{CIE: &CIE{}, Instructions: c.instructions}
		if got := f.startsInside(); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
