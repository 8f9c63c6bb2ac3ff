package recording

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// Store takes the blocks of a recording.
type Store interface {
	// Append takes a block in its stored form, of which nothing is kept
	// after the call. After an error nothing more is appended.
	Append(h *Header, block []byte) error
	// Close ends the recording.
	Close() error
}

// fileStore is a Store in a file that grows. When the process is killed it is a
// readable recording: blocks are written whole and in order.
type fileStore struct {
	f     *os.File
	size  int64
	index []BlockInfo
	err   error
}

// NewFileStore returns a Store that writes to f, which is empty, and closes it
// in the end.
func NewFileStore(f *os.File) Store { return &fileStore{f: f} }

// Append implements Store. When the file cannot take the whole block, what was
// written of it is taken back.
func (s *fileStore) Append(h *Header, block []byte) error {
	if s.err != nil {
		return s.err
	}
	if _, err := s.f.Write(block); err != nil {
		s.err = fmt.Errorf("write recording: %w", err)
		if e := s.f.Truncate(s.size); e != nil && !errors.Is(e, os.ErrInvalid) {
			s.err = errors.Join(s.err, fmt.Errorf("take an unfinished block back: %w", e))
		}
		return s.err
	}
	s.index = append(s.index, BlockInfo{Header: *h, Offset: s.size})
	s.size += int64(len(block))
	return nil
}

// Close implements Store: it appends the index.
func (s *fileStore) Close() error {
	var err error
	if s.err == nil && len(s.index) > 0 {
		err = s.appendIndex()
	}
	return errors.Join(err, s.f.Close())
}

func (s *fileStore) appendIndex() error {
	b, err := indexBlock(s.index, s.size)
	if err != nil {
		return err
	}
	if _, err := s.f.Write(b); err != nil {
		// It is a convenience: without it the blocks are found one by one.
		return errors.Join(fmt.Errorf("write the index of the recording: %w", err), s.f.Truncate(s.size))
	}
	return nil
}

// writerStore is a Store that writes to anything, without an index.
type writerStore struct{ w io.Writer }

// NewWriterStore returns a Store that writes to w, for pipes.
func NewWriterStore(w io.Writer) Store { return writerStore{w} }

// Append implements Store.
func (s writerStore) Append(_ *Header, block []byte) error {
	if _, err := s.w.Write(block); err != nil {
		return fmt.Errorf("write recording: %w", err)
	}
	return nil
}

// Close implements Store.
func (s writerStore) Close() error { return nil }
