package exporter

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/google/pprof/profile"
)

func TestReadErrors(t *testing.T) {
	whole := write(t, cacheServer(), FormatPprof, Options{})
	for _, tc := range []struct {
		name string
		data []byte
		want string
	}{
		{"nothing", nil, "the file is empty"},
		{"cut", whole[:len(whole)/2], "unexpected EOF"},
		{"no profile", []byte("\x7fELF\x02\x01\x01\x00"), "neither a pprof profile nor folded stacks"},
		{"half a gzip header", []byte{0x1f, 0x8b}, "decompress"},
		{"only a gzip header", whole[:10], "decompress"},
	} {
		if p, err := Read(bytes.NewReader(tc.data)); err == nil || p != nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want %q", tc.name, err, tc.want)
		}
	}
	if _, err := Read(io.MultiReader(bytes.NewReader(whole[:20]), errReader{})); !errors.Is(err, errFull) {
		t.Errorf("a reader's error became %v", err)
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errFull }

// TestReadIsBounded reads files that want more memory than they may have.
func TestReadIsBounded(t *testing.T) {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	zeros := make([]byte, 1<<20)
	for range 64 {
		z.Write(zeros)
	}
	z.Close()
	// Two bytes of an empty message become a sample, a location, a line.
	messages := map[string][]byte{
		"samples":   bytes.Repeat([]byte{profileSample<<3 | 2, 0}, 1<<20),
		"locations": bytes.Repeat([]byte{profileLocation<<3 | 2, 0}, 1<<20),
		"functions": bytes.Repeat([]byte{profileFunction<<3 | 2, 0}, 1<<20),
		"labels":    append([]byte{profileSample<<3 | 2, 0x80, 0x80, 0x80, 0x01}, bytes.Repeat([]byte{sampleLabel<<3 | 2, 0}, 1<<20)...),
		"stacks":    []byte("a 1\n" + strings.Repeat("b;", 1<<20) + "c 1\n"),
		"bomb":      bomb.Bytes(),
	}
	for name, data := range messages {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := read(bytes.NewReader(data), 32<<20, 16<<20)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 200<<20 {
			t.Errorf("%s: took %d MiB to be refused", name, took>>20)
		}
	}
}

// TestProtoMemory holds the estimate against what reading takes.
func TestProtoMemory(t *testing.T) {
	for name, p := range map[string]*profile.Profile{"server": cacheServer(), "many": manyStacks(20_000, 20_000, 30)} {
		var plain bytes.Buffer
		if err := p.WriteUncompressed(&plain); err != nil {
			t.Fatal(err)
		}
		need, err := protoMemory(plain.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		got, err := profile.ParseUncompressed(plain.Bytes())
		runtime.GC()
		runtime.ReadMemStats(&after)
		if err != nil {
			t.Fatal(err)
		}
		took := int64(after.HeapAlloc) - int64(before.HeapAlloc)
		if took > need || need > 20*took+1<<20 {
			t.Errorf("%s: %d bytes take %d in memory, estimated %d", name, plain.Len(), took, need)
		}
		runtime.KeepAlive(got)
	}
}

// FuzzRead reads anything: an error or a valid profile, which every format can
// be made of and every operation done to.
func FuzzRead(f *testing.F) {
	for _, p := range []*profile.Profile{cacheServer(), polyglot(), newBuilder().p, diffOf(f, slowerServer(), cacheServer())} {
		var plain bytes.Buffer
		if err := p.WriteUncompressed(&plain); err != nil {
			f.Fatal(err)
		}
		f.Add(plain.Bytes())
		f.Add(write(f, p, FormatFolded, Options{}))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := read(bytes.NewReader(data), 1<<20, 64<<20)
		if (err == nil) == (p == nil) {
			t.Fatalf("profile %v and error %v", p, err)
		}
		if err != nil {
			return
		}
		if err := p.CheckValid(); err != nil {
			t.Fatal(err)
		}
		for _, format := range Formats {
			if err := WriteProfile(io.Discard, p, format, Options{Width: 80, ByThread: true}); err != nil && !errors.Is(err, ErrSampleType) {
				t.Fatalf("%s: %v", format, err)
			}
		}
		filtered := (&Filter{Funcs: []string{"*a*"}, Threads: []string{"*"}}).Apply(p)
		if err := filtered.CheckValid(); err != nil {
			t.Fatal(err)
		}
		if merged, err := Merge(p, cacheServer()); err == nil {
			p = merged
		}
		if d, err := Diff(p, p); err == nil {
			if err := WriteProfile(io.Discard, d, FormatHTML, Options{}); err != nil && !errors.Is(err, ErrSampleType) {
				t.Fatal(err)
			}
		}
	})
}
