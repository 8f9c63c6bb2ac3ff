package recording

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"

	"github.com/klauspost/compress/zstd"
)

// File is a recording that is read. Its methods may be called concurrently,
// except Block, Rows and Close.
type File struct {
	Session Session
	// Blocks are the blocks of events in the order of the stream.
	Blocks []BlockInfo
	// Rows are the blocks with sums of the kernel's counters.
	Rows []BlockInfo
	// Damage is what was found wrong when the file was opened; what could be
	// read of it is there.
	Damage Damage
	// Indexed: the recording was ended in order and has an index.
	Indexed bool

	r       io.ReaderAt
	size    int64
	close   func() error
	dec     *zstd.Decoder // made when needed
	session bool
	stored  []byte
	starts  []uint64 // by block: the latest of the first times up to it
}

// Damage is what is wrong with a recording as a whole.
type Damage struct {
	Skipped   int64  // bytes that are in no block
	Truncated bool   // the last block is not complete
	Foreign   int    // blocks of other recordings
	Missing   uint64 // blocks that are missing between others
}

// Any reports whether anything is wrong.
func (d *Damage) Any() bool { return d.Skipped > 0 || d.Truncated || d.Foreign > 0 || d.Missing > 0 }

// Open opens the recording at path. Errors wrap ErrNotRecording or ErrVersion
// where that is the reason.
func Open(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open recording: %w", err)
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = fmt.Errorf("it is a directory")
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open recording %s: %w", path, err)
	}
	r, err := NewFile(f, info.Size())
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open recording %s: %w", path, err)
	}
	r.close = f.Close
	return r, nil
}

// NewFile reads a recording of that size from r.
func NewFile(r io.ReaderAt, size int64) (*File, error) {
	f := &File{r: r, size: size}
	blocks, ok, err := f.readIndex()
	if err != nil {
		return nil, err
	}
	if f.Indexed = ok; !ok {
		if blocks, err = f.scan(); err != nil {
			return nil, err
		}
	}
	if err := f.sort(blocks); err != nil {
		return nil, err
	}
	if !f.Indexed {
		f.dropTorn()
	}
	return f, nil
}

// dropTorn leaves the newest block out if it was being written when the writer
// was killed, over an older one. In a ring, what lies between blocks is nothing
// that is missing.
func (f *File) dropTorn() {
	if f.Session.Ring != nil {
		f.Damage.Skipped = 0
	}
	last := len(f.Blocks) - 1
	if last < 0 {
		return
	}
	if _, err := f.payload(&f.Blocks[last]); errors.Is(err, ErrCorrupt) {
		f.Blocks, f.starts = f.Blocks[:last], f.starts[:last]
		f.Damage.Truncated = true
	}
}

// Close closes the file.
func (f *File) Close() error {
	if f.dec != nil {
		f.dec.Close()
	}
	if f.close == nil {
		return nil
	}
	return f.close()
}

// Size is the file's size in bytes.
func (f *File) Size() int64 { return f.size }

// readIndex finds the blocks by the index, if there is one that is whole.
func (f *File) readIndex() ([]BlockInfo, bool, error) {
	if f.size < headerSize+trailerSize {
		return nil, false, nil
	}
	var trailer [trailerSize]byte
	if _, err := f.r.ReadAt(trailer[:], f.size-trailerSize); err != nil {
		return nil, false, fmt.Errorf("read the trailer: %w", err)
	}
	offset, ok := parseTrailer(trailer[:], f.size)
	if !ok {
		return nil, false, nil
	}
	h, err := f.header(offset)
	if err != nil || h.Kind != BlockIndex || offset+headerSize+int64(h.Stored)+trailerSize != f.size {
		return nil, false, nil
	}
	raw, err := f.payload(&BlockInfo{Header: h, Offset: offset})
	if err != nil {
		return nil, false, nil
	}
	blocks, err := parseIndex(&h, raw, offset)
	return blocks, err == nil, nil
}

// scan finds the blocks one by one, and goes on after damaged places.
func (f *File) scan() ([]BlockInfo, error) {
	var blocks []BlockInfo
	for at := int64(0); at < f.size; {
		h, err := f.header(at)
		if errors.Is(err, ErrVersion) {
			return nil, err
		}
		if err == nil {
			b := BlockInfo{Header: h, Offset: at}
			if b.end() > f.size {
				f.Damage.Truncated = true
				return blocks, nil
			}
			blocks = append(blocks, b)
			at = b.end()
			continue
		}
		if f.size-at < headerSize && len(blocks) > 0 {
			f.Damage.Truncated = true
			return blocks, nil
		}
		next, err := f.findMagic(at + 1)
		if err != nil {
			return nil, err
		}
		if !f.isTrailer(at, next) {
			f.Damage.Skipped += next - at
		}
		at = next
	}
	return blocks, nil
}

// isTrailer reports whether the bytes from one offset to another are a trailer:
// of a recording that another was appended to.
func (f *File) isTrailer(from, to int64) bool {
	var b [trailerSize]byte
	if to-from != trailerSize {
		return false
	}
	_, err := f.r.ReadAt(b[:], from)
	return err == nil && string(b[:len(trailerMagic)]) == trailerMagic
}

// findMagic returns where the next block may begin from at on; the file's size
// when there is none.
func (f *File) findMagic(at int64) (int64, error) {
	buf := make([]byte, 1<<20)
	for at < f.size {
		n, err := f.r.ReadAt(buf, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, fmt.Errorf("search for blocks: %w", err)
		}
		if i := bytes.Index(buf[:n], []byte(magic)); i >= 0 {
			return at + int64(i), nil
		}
		if n < len(magic) || err != nil {
			break
		}
		at += int64(n - len(magic) + 1)
	}
	return f.size, nil
}

// header reads the header at an offset.
func (f *File) header(at int64) (Header, error) {
	var b [headerSize]byte
	if n, err := f.r.ReadAt(b[:], at); n < len(b) {
		if err != nil && !errors.Is(err, io.EOF) {
			return Header{}, fmt.Errorf("read a block: %w", err)
		}
		return Header{}, fmt.Errorf("a block begins and the file ends: %w", ErrCorrupt)
	}
	return parseHeader(b[:])
}

// sort keeps the blocks of one recording, in order, and reads the session.
func (f *File) sort(blocks []BlockInfo) error {
	if len(blocks) == 0 {
		return ErrNotRecording
	}
	id := blocks[0].Header.Recording
	slices.SortStableFunc(blocks, func(a, b BlockInfo) int { return cmp.Compare(a.Header.Seq, b.Header.Seq) })
	var last uint64 // sequence number of the last block of the stream
	seen := false
	for i := range blocks {
		b := &blocks[i]
		if b.Header.Recording != id {
			f.Damage.Foreign++
			continue
		}
		if b.Header.Kind == BlockIndex {
			continue
		}
		if seen && b.Header.Seq == last {
			f.Damage.Foreign++
			continue
		}
		// A ring has lost its oldest blocks, those between the session and
		// the first block of events.
		if seen && b.Header.Seq > last+1 && len(f.Blocks) > 0 {
			f.Damage.Missing += b.Header.Seq - last - 1
		}
		seen, last = true, b.Header.Seq
		switch b.Header.Kind {
		case BlockSession:
			if err := f.readSession(b); err != nil {
				return err
			}
		case BlockEvents:
			f.starts = append(f.starts, max(b.Header.First, f.lastStart()))
			f.Blocks = append(f.Blocks, *b)
		case BlockRows:
			f.Rows = append(f.Rows, *b)
		}
	}
	return nil
}

func (f *File) readSession(b *BlockInfo) error {
	raw, err := f.payload(b)
	if err != nil {
		return err
	}
	s, err := parseSession(raw)
	if err != nil {
		return err
	}
	f.Session, f.session = *s, true
	return nil
}

// payload returns the decompressed payload of a block, checked.
func (f *File) payload(b *BlockInfo) ([]byte, error) {
	size := headerSize + int64(b.Header.Stored)
	if int64(cap(f.stored)) < size {
		f.stored = make([]byte, size)
	}
	stored := f.stored[:size]
	if _, err := f.r.ReadAt(stored, b.Offset); err != nil {
		return nil, fmt.Errorf("read block %d: %w", b.Header.Seq, err)
	}
	h, err := parseHeader(stored)
	if err != nil {
		return nil, fmt.Errorf("block %d at %d: %w", b.Header.Seq, b.Offset, err)
	}
	if h.Kind != b.Header.Kind || h.Seq != b.Header.Seq || h.Recording != b.Header.Recording || h.Stored != b.Header.Stored {
		return nil, fmt.Errorf("block %d at %d is another one than the index says: %w", b.Header.Seq, b.Offset, ErrCorrupt)
	}
	payload := stored[headerSize:]
	if crc32.Checksum(payload, castagnoli) != h.payloadSum {
		return nil, fmt.Errorf("checksum of block %d at %d: %w", h.Seq, b.Offset, ErrCorrupt)
	}
	if h.Flags&flagZstd == 0 {
		return bytes.Clone(payload), nil
	}
	raw, err := f.decompress(payload, int64(h.Raw))
	if err != nil {
		return nil, fmt.Errorf("decompress block %d: %w: %w", h.Seq, err, ErrCorrupt)
	}
	if len(raw) != int(h.Raw) {
		return nil, fmt.Errorf("block %d has %d bytes, not %d: %w", h.Seq, len(raw), h.Raw, ErrCorrupt)
	}
	return raw, nil
}

// decompress returns what a zstd frame holds, which should be size bytes.
func (f *File) decompress(frame []byte, size int64) ([]byte, error) {
	if f.dec == nil {
		dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxIndexRaw),
			zstd.WithDecoderMaxWindow(8<<20), zstd.IgnoreChecksum(true))
		if err != nil {
			return nil, fmt.Errorf("start zstd: %w", err)
		}
		f.dec = dec
	}
	// A header may promise more than there is.
	return f.dec.DecodeAll(frame, make([]byte, 0, min(size, 16*int64(len(frame))+4096)))
}

// Block decodes the block of events number i.
func (f *File) Block(i int) (*Block, error) {
	raw, err := f.payload(&f.Blocks[i])
	if err != nil {
		return nil, err
	}
	b, err := parseBlock(f.Blocks[i].Header, raw)
	if err != nil {
		return nil, fmt.Errorf("block %d: %w", f.Blocks[i].Header.Seq, err)
	}
	return b, nil
}

// Sums reads the last block of sums; nil if there is none.
func (f *File) Sums() (*Rows, error) {
	if len(f.Rows) == 0 {
		return nil, nil
	}
	b := &f.Rows[len(f.Rows)-1]
	raw, err := f.payload(b)
	if err != nil {
		return nil, err
	}
	return parseRows(b.Header, raw)
}

// Follows reports whether block i of Blocks continues where the one before it
// ended; it does not where blocks are missing.
func (f *File) Follows(i int) bool {
	return i > 0 && f.Blocks[i-1].Header.Seq+1 == f.Blocks[i].Header.Seq
}

func (f *File) lastStart() uint64 {
	if n := len(f.starts); n > 0 {
		return f.starts[n-1]
	}
	return 0
}

// At returns the number of the block of events with whose beginning to start to
// reach the state at the time t.
func (f *File) At(t uint64) int {
	i, _ := slices.BinarySearch(f.starts, t+1)
	return max(i-1, 0)
}

// Span returns the earliest and the latest time of the recording, ns
// CLOCK_MONOTONIC; zeros for one without events.
func (f *File) Span() (first, last uint64) {
	for _, blocks := range [][]BlockInfo{f.Blocks, f.Rows} {
		for i := range blocks {
			h := &blocks[i].Header
			if h.First != 0 && (first == 0 || h.First < first) {
				first = h.First
			}
			last = max(last, h.Last)
		}
	}
	return first, last
}

// Wall is Unix time less CLOCK_MONOTONIC at the time t, ns; false if the
// recording does not tell.
func (f *File) Wall(t uint64) (int64, bool) {
	if len(f.Blocks) > 0 {
		if w := f.Blocks[f.At(t)].Header.Wall; w != 0 {
			return w, true
		}
	}
	if f.Session.Unix != 0 {
		return f.Session.Unix - int64(f.Session.Monotonic), true
	}
	return 0, false
}

// Payload returns the payload of the block of events number i, decompressed.
func (f *File) Payload(i int) ([]byte, error) { return f.payload(&f.Blocks[i]) }

// ReadAt implements io.ReaderAt: the file's bytes as they are.
func (f *File) ReadAt(b []byte, at int64) (int, error) { return f.r.ReadAt(b, at) }
