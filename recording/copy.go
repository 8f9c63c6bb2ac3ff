package recording

import (
	"errors"
	"fmt"
)

// Lost says what a copy had to leave out.
type Lost struct {
	Blocks int    // blocks whose contents are damaged
	Events uint64 // events in them, by their headers
	Errs   []error
}

// Repair copies what is readable of f to store, in order, and closes it.
func Repair(f *File, store Store) (Lost, error) {
	lost, err := repair(f, store)
	return lost, errors.Join(err, store.Close())
}

func repair(f *File, store Store) (Lost, error) {
	var lost Lost
	session := f.Session
	session.Notes = append(session.Notes, "repaired")
	if err := appendSession(f, store, session); err != nil {
		return lost, err
	}
	for _, blocks := range [][]BlockInfo{f.Blocks, f.Rows} {
		for i := range blocks {
			b := &blocks[i]
			if err := f.check(b); err != nil {
				lost.Blocks++
				lost.Events += uint64(b.Header.Events)
				lost.Errs = append(lost.Errs, err)
				continue
			}
			h, err := parseHeader(f.stored)
			if err != nil {
				return lost, err
			}
			if err := store.Append(&h, f.stored[:headerSize+int64(h.Stored)]); err != nil {
				return lost, err
			}
		}
	}
	return lost, nil
}

// check reads all of a block. Its stored form is in f.stored afterwards.
func (f *File) check(b *BlockInfo) error {
	raw, err := f.payload(b)
	if err != nil {
		return err
	}
	if b.Header.Kind == BlockRows {
		_, err := parseRows(b.Header, raw)
		return err
	}
	block, err := parseBlock(b.Header, raw)
	if err != nil {
		return fmt.Errorf("block %d: %w", b.Header.Seq, err)
	}
	items := block.Items()
	for items.Next() {
	}
	return items.Err()
}

// appendSession begins a copy of f.
func appendSession(f *File, store Store, s Session) error {
	payload, err := s.payload()
	if err != nil {
		return err
	}
	p, err := newPacker()
	if err != nil {
		return err
	}
	h := Header{Version: Version, Kind: BlockSession}
	for _, b := range append(f.Blocks, f.Rows...) {
		h.Recording = b.Header.Recording
		break
	}
	return store.Append(&h, p.pack(&h, payload))
}
