package recording

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"
)

// RingOptions bound what a ring keeps: the newest blocks.
type RingOptions struct {
	Bytes int64         // of the whole recording; 0: no bound
	Last  time.Duration // blocks whose events are all older than this before the newest go; 0: no bound
}

// MinRing is the smallest bound of a ring, in bytes.
const MinRing = 1 << 20

// reserve is what a ring leaves free for its index.
const reserve = 64 << 10

// falls reports whether a block is too old to be kept.
func (o *RingOptions) falls(b *Header, newest uint64) bool {
	return o.Last > 0 && b.Last != 0 && b.Last+uint64(o.Last) < newest
}

// extent is a part of a file.
type extent struct{ at, size int64 }

// ringStore is a Store in a file that keeps the newest blocks. A block goes to
// the first free place that is large enough; the oldest make room. Blocks that
// have fallen out are made unreadable before their place is used again, and
// readers order the rest by sequence number, so that the file is a recording at
// every moment.
type ringStore struct {
	f      *os.File
	opt    RingOptions
	fixed  int64       // bytes of the session block, which stays
	blocks []BlockInfo // oldest first
	free   []extent    // by place, none next to another
	end    int64       // of the last block by place
	newest uint64
	err    error
}

// NewRingStore returns a Store that keeps the newest blocks in f, which is
// empty, and closes it in the end.
func NewRingStore(f *os.File, opt RingOptions) Store { return &ringStore{f: f, opt: opt} }

// Append implements Store.
func (s *ringStore) Append(h *Header, block []byte) error {
	if s.err == nil {
		s.err = s.append(h, block)
	}
	return s.err
}

func (s *ringStore) append(h *Header, block []byte) error {
	s.newest = max(s.newest, h.Last)
	size := int64(len(block))
	if s.opt.Bytes > 0 && s.fixed+size+reserve > s.opt.Bytes {
		return fmt.Errorf("write recording: a block of %d bytes does not fit into a ring of %d", size, s.opt.Bytes)
	}
	for len(s.blocks) > 0 && s.opt.falls(&s.blocks[0].Header, s.newest) {
		if err := s.drop(); err != nil {
			return err
		}
	}
	at, ok := s.place(size)
	for !ok {
		if err := s.drop(); err != nil {
			return err
		}
		at, ok = s.place(size)
	}
	if n, err := s.f.WriteAt(block, at); err != nil {
		err = fmt.Errorf("write recording: %w", err)
		return errors.Join(err, s.takeBack(at, int64(n)))
	}
	s.end = max(s.end, at+size)
	if h.Kind == BlockSession {
		s.fixed = at + size
		return nil
	}
	s.blocks = append(s.blocks, BlockInfo{Header: *h, Offset: at})
	return nil
}

// takeBack undoes a write that did not succeed.
func (s *ringStore) takeBack(at, written int64) error {
	if at+written > s.end {
		return s.f.Truncate(s.end)
	}
	return s.erase(at)
}

// place finds room for a block.
func (s *ringStore) place(size int64) (int64, bool) {
	for i := range s.free {
		e := &s.free[i]
		if e.size < size {
			continue
		}
		at := e.at
		if e.at, e.size = e.at+size, e.size-size; e.size == 0 {
			s.free = slices.Delete(s.free, i, i+1)
		}
		return at, true
	}
	if s.opt.Bytes > 0 && s.end+size+reserve > s.opt.Bytes {
		return 0, false
	}
	return s.end, true
}

// drop makes the oldest block unreadable and its place free.
func (s *ringStore) drop() error {
	b := s.blocks[0]
	s.blocks = s.blocks[1:]
	if err := s.erase(b.Offset); err != nil {
		return err
	}
	i, _ := slices.BinarySearchFunc(s.free, b.Offset, func(e extent, at int64) int { return int(e.at - at) })
	s.free = slices.Insert(s.free, i, extent{b.Offset, b.end() - b.Offset})
	if i+1 < len(s.free) && s.free[i].at+s.free[i].size == s.free[i+1].at {
		s.free[i].size += s.free[i+1].size
		s.free = slices.Delete(s.free, i+1, i+2)
	}
	if i > 0 && s.free[i-1].at+s.free[i-1].size == s.free[i].at {
		s.free[i-1].size += s.free[i].size
		s.free = slices.Delete(s.free, i, i+1)
	}
	return s.shrink()
}

// shrink gives back what is free at the end of the file.
func (s *ringStore) shrink() error {
	last := len(s.free) - 1
	if last < 0 || s.free[last].at+s.free[last].size != s.end {
		return nil
	}
	s.end = s.free[last].at
	s.free = s.free[:last]
	if err := s.f.Truncate(s.end); err != nil {
		return fmt.Errorf("shrink recording: %w", err)
	}
	return nil
}

// erase overwrites a block's magic.
func (s *ringStore) erase(at int64) error {
	if _, err := s.f.WriteAt(make([]byte, len(magic)), at); err != nil {
		return fmt.Errorf("write recording: %w", err)
	}
	return nil
}

// Close implements Store: it appends the index.
func (s *ringStore) Close() error {
	var err error
	if s.err == nil && s.fixed > 0 {
		err = s.appendIndex()
	}
	return errors.Join(err, s.f.Close())
}

func (s *ringStore) appendIndex() error {
	session := Header{Version: Version, Kind: BlockSession, Stored: uint32(s.fixed - headerSize)}
	var head [headerSize]byte
	if _, err := s.f.ReadAt(head[:], 0); err == nil {
		if h, err := parseHeader(head[:]); err == nil {
			session = h
		}
	}
	b, err := indexBlock(append([]BlockInfo{{Header: session}}, s.blocks...), s.end)
	if err != nil || len(b) > reserve && s.opt.Bytes > 0 {
		return err
	}
	if err := s.f.Truncate(s.end); err != nil {
		return fmt.Errorf("write the index of the recording: %w", err)
	}
	if _, err := s.f.WriteAt(b, s.end); err != nil {
		return errors.Join(fmt.Errorf("write the index of the recording: %w", err), s.f.Truncate(s.end))
	}
	return nil
}

// Memory is a Store that keeps the newest blocks in memory until they are saved.
// It is for one goroutine at a time.
type Memory struct {
	opt     RingOptions
	session []byte
	blocks  []kept
	first   int // blocks before it have fallen out
	size    int64
	newest  uint64
	spare   [][]byte
}

type kept struct {
	header Header
	bytes  []byte
}

// NewMemory returns an empty Memory.
func NewMemory(opt RingOptions) *Memory { return &Memory{opt: opt} }

// Append implements Store.
func (m *Memory) Append(h *Header, block []byte) error {
	if h.Kind == BlockSession {
		m.session = slices.Clone(block)
		m.size += int64(len(block))
		return nil
	}
	m.newest = max(m.newest, h.Last)
	for m.first < len(m.blocks) {
		oldest := &m.blocks[m.first]
		if !m.opt.falls(&oldest.header, m.newest) && (m.opt.Bytes == 0 || m.size+int64(len(block)) <= m.opt.Bytes) {
			break
		}
		m.size -= int64(len(oldest.bytes))
		if len(m.spare) < 8 {
			m.spare = append(m.spare, oldest.bytes)
		}
		oldest.bytes = nil
		m.first++
	}
	if m.first > len(m.blocks)/2 {
		m.blocks = m.blocks[:copy(m.blocks, m.blocks[m.first:])]
		m.first = 0
	}
	b := kept{header: *h}
	if n := len(m.spare); n > 0 && cap(m.spare[n-1]) >= len(block) && cap(m.spare[n-1]) < 2*len(block) {
		b.bytes, m.spare = m.spare[n-1][:0], m.spare[:n-1]
	} else if n > 0 {
		m.spare = m.spare[:n-1] // of another size than what comes now
	}
	b.bytes = append(b.bytes, block...)
	m.blocks = append(m.blocks, b)
	m.size += int64(len(block))
	return nil
}

// Size is how many bytes are kept.
func (m *Memory) Size() int64 { return m.size }

// Save writes what is kept of the time from, ns, on to f as a recording of its
// own, and closes f. session replaces the one that the recording began with.
func (m *Memory) Save(f *os.File, session *Session, from uint64) error {
	s := NewFileStore(f)
	if err := m.save(s, session, from); err != nil {
		return errors.Join(err, f.Close())
	}
	return s.Close()
}

func (m *Memory) save(s Store, session *Session, from uint64) error {
	h, err := parseHeader(m.session)
	if err != nil {
		return err
	}
	payload, err := session.payload()
	if err != nil {
		return err
	}
	p, err := newPacker()
	if err != nil {
		return err
	}
	b := p.pack(&h, payload)
	if err := s.Append(&h, b); err != nil {
		return err
	}
	for i := m.first; i < len(m.blocks); i++ {
		b := &m.blocks[i]
		if b.header.Last != 0 && b.header.Last < from {
			continue
		}
		if err := s.Append(&b.header, b.bytes); err != nil {
			return err
		}
	}
	return nil
}

// Close implements Store.
func (m *Memory) Close() error { return nil }

var _ io.Closer = (*Memory)(nil)
