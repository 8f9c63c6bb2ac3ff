package recording

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sbxtrace/sbxtrace/internal/synth"
	"github.com/sbxtrace/sbxtrace/trace"
)

// manyBlocks is a recording of some 20 blocks, its bytes and events.
func manyBlocks(t testing.TB) ([]byte, []trace.Event) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "test.sbx")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	events := record(t, NewFileStore(f), synth.New(synth.Options{Seed: 11, Threads: 3}), 20_000, Options{SealAfter: time.Millisecond})
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data, events
}

func open(t testing.TB, data []byte) *File {
	t.Helper()
	f, err := NewFile(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// withoutIndex is what a killed writer leaves at best.
func withoutIndex(t testing.TB, data []byte) []byte {
	t.Helper()
	offset, ok := parseTrailer(data[len(data)-trailerSize:], int64(len(data)))
	if !ok {
		t.Fatal("no trailer")
	}
	return data[:offset]
}

func TestIndexIsWhatIsThere(t *testing.T) {
	data, _ := manyBlocks(t)
	indexed, scanned := open(t, data), open(t, withoutIndex(t, data))
	if !indexed.Indexed || scanned.Indexed {
		t.Fatalf("indexed: %v and %v", indexed.Indexed, scanned.Indexed)
	}
	if len(scanned.Blocks) < 10 {
		t.Fatalf("only %d blocks", len(scanned.Blocks))
	}
	for i := range scanned.Blocks {
		scanned.Blocks[i].Header.payloadSum = 0 // not in the index
	}
	if !reflect.DeepEqual(indexed.Blocks, scanned.Blocks) {
		t.Errorf("blocks by the index\n %v\nby looking\n %v", indexed.Blocks, scanned.Blocks)
	}
	if scanned.Damage.Any() {
		t.Errorf("damage: %+v", scanned.Damage)
	}
}

// Wherever the end is missing, the blocks before it are read.
func TestTruncated(t *testing.T) {
	data, want := manyBlocks(t)
	data = withoutIndex(t, data)
	whole := open(t, data)
	r := rand.New(rand.NewPCG(1, 1))
	for range 100 {
		n := headerSize + r.IntN(len(data)-headerSize)
		f, err := NewFile(bytes.NewReader(data[:n]), int64(n))
		if err != nil {
			if !errors.Is(err, ErrNotRecording) || int64(n) >= whole.Blocks[0].Offset {
				t.Fatalf("%d of %d bytes: %v", n, len(data), err)
			}
			continue
		}
		complete := 0
		for i := range whole.Blocks {
			if whole.Blocks[i].end() <= int64(n) {
				complete++
			}
		}
		if len(f.Blocks) != complete {
			t.Fatalf("%d of %d bytes: %d blocks, want %d", n, len(data), len(f.Blocks), complete)
		}
		got := events(t, f)
		if len(got) > 0 && !reflect.DeepEqual(got, want[:len(got)]) {
			t.Fatalf("%d of %d bytes: other events", n, len(data))
		}
	}
}

// Whatever the first bytes of a file are, the blocks after them are read.
func TestSuffix(t *testing.T) {
	data, want := manyBlocks(t)
	data = withoutIndex(t, data)
	from := open(t, data).Blocks[3].Offset + 17 // in the middle of a block
	f := open(t, data[from:])
	if f.Damage.Skipped == 0 || len(f.Blocks) == 0 {
		t.Fatalf("%d blocks, damage %+v", len(f.Blocks), f.Damage)
	}
	got := events(t, f)
	if !reflect.DeepEqual(got, want[len(want)-len(got):]) {
		t.Error("other events")
	}
}

func TestDamaged(t *testing.T) {
	data, _ := manyBlocks(t)
	scan := withoutIndex(t, data)
	block := open(t, scan).Blocks[4]

	payload := bytes.Clone(scan)
	payload[block.Offset+headerSize+20] ^= 1
	f := open(t, payload)
	if _, err := f.Block(4); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "checksum") {
		t.Errorf("changed payload: %v", err)
	}
	if _, err := f.Block(5); err != nil {
		t.Errorf("the block after it: %v", err)
	}

	header := bytes.Clone(scan)
	header[block.Offset+30] ^= 1
	f = open(t, header)
	if f.Damage.Skipped != block.end()-block.Offset || f.Damage.Missing != 1 {
		t.Errorf("changed header: %+v", f.Damage)
	}
	if f.Follows(4) || !f.Follows(3) || !f.Follows(5) {
		t.Error("a missing block is not noticed")
	}

	// An index that lies is found out when the block is read.
	other := bytes.Clone(data)
	copy(other[block.Offset:], make([]byte, headerSize))
	if f = open(t, other); !f.Indexed {
		t.Fatal("not indexed")
	}
	if _, err := f.Block(4); !errors.Is(err, ErrCorrupt) {
		t.Errorf("missing block: %v", err)
	}

	twice := append(bytes.Clone(scan), scan...)
	if f = open(t, twice); f.Damage.Foreign == 0 || len(f.Blocks) != len(open(t, scan).Blocks) {
		t.Errorf("a recording twice: %d blocks, %+v", len(f.Blocks), f.Damage)
	}
}

func TestNotRecordings(t *testing.T) {
	newer := make([]byte, headerSize)
	copy(newer, magic)
	binary.LittleEndian.PutUint16(newer[8:], Version+1)
	for name, tt := range map[string]struct {
		data []byte
		want error
	}{
		"empty": {nil, ErrNotRecording},
		"text":  {bytes.Repeat([]byte("no recording\n"), 1000), ErrNotRecording},
		"magic": {[]byte(magic), ErrNotRecording},
		"newer": {newer, ErrVersion},
	} {
		if _, err := NewFile(bytes.NewReader(tt.data), int64(len(tt.data))); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	if _, err := Open(t.TempDir()); err == nil || !strings.Contains(err.Error(), "directory") {
		t.Errorf("directory: %v", err)
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
}

// payloads of blocks with everything in them, for fuzzing.
func payloads(t testing.TB) (out [][]byte, kinds []BlockKind) {
	t.Helper()
	f, err := Open("testdata/v1.sbx")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, blocks := range [][]BlockInfo{f.Blocks, f.Rows} {
		for i := range blocks {
			raw, err := f.payload(&blocks[i])
			if err != nil {
				t.Fatal(err)
			}
			out, kinds = append(out, raw), append(kinds, blocks[i].Header.Kind)
		}
	}
	return out, kinds
}

// readAll reads everything that there is.
func readAll(t *testing.T, f *File) {
	for i := range f.Blocks {
		b, err := f.Block(i)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
				t.Errorf("error of no kind: %v", err)
			}
			continue
		}
		n := 0
		items := b.Items()
		for items.Next() {
			if n++; n > maxItems {
				t.Fatalf("%d items in a block", n)
			}
		}
		if err := items.Err(); err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("error of no kind: %v", err)
		}
	}
	if _, err := f.Sums(); err != nil && !errors.Is(err, ErrCorrupt) {
		t.Errorf("error of no kind: %v", err)
	}
}

// FuzzBlock reads a block whose checksums are right and whose payload is not.
func FuzzBlock(f *testing.F) {
	seeds, kinds := payloads(f)
	for i, raw := range seeds {
		f.Add(raw, uint8(kinds[i]))
	}
	f.Fuzz(func(t *testing.T, raw []byte, kind uint8) {
		data := Pack(&Header{Kind: BlockKind(kind)}, raw)
		file, err := NewFile(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Errorf("error of no kind: %v", err)
			}
			return
		}
		readAll(t, file)
	})
}

// FuzzFile reads a file of any bytes. The checksums of headers are made right,
// or hardly any would get past them.
func FuzzFile(f *testing.F) {
	data, err := os.ReadFile("testdata/v1.sbx")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(data[:len(data)/2])
	f.Add(data[len(data)/3:])
	f.Fuzz(func(t *testing.T, data []byte) {
		data = bytes.Clone(data)
		for at := 0; ; {
			i := bytes.Index(data[at:], []byte(magic))
			if i < 0 || at+i+headerSize > len(data) {
				break
			}
			at += i
			binary.LittleEndian.PutUint32(data[at+92:], crc32.Checksum(data[at:at+92], castagnoli))
			at += len(magic)
		}
		file, err := NewFile(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) && !errors.Is(err, ErrNotRecording) {
				t.Errorf("error of no kind: %v", err)
			}
			return
		}
		readAll(t, file)
	})
}
