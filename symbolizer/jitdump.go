package symbolizer

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
)

// The jitdump format: tools/perf/Documentation/jitdump-specification.txt in the
// kernel's sources. All fields have the machine's byte order.
const (
	jitdumpMagic      = 0x4a695444 // "JiTD"
	jitdumpHeader     = 40         // at least; the header says how much
	jitdumpRecord     = 16         // kind, size, time
	jitdumpLoad       = 0
	jitdumpMove       = 1
	jitdumpDebugInfo  = 2
	maxJITDumpHeader  = 64 << 10
	maxJITDumpDebug   = 16 << 20 // one record of lines
	maxJITDumpName    = 64 << 10
	maxJITDumpEntries = 1 << 20 // lines of one function
)

// jitdump reads a jitdump file as it grows. Code itself is passed over.
type jitdump struct {
	order binary.ByteOrder
	// lines of the function whose code comes next, by its address.
	lines     *jitLines
	linesAddr uint64
}

// read takes up the records from offset from on, and returns the offset after
// the last whole one. A record that contradicts the format ends the file for
// good, with ErrMalformed: nothing marks where the next one begins.
func (d *jitdump) read(r io.ReaderAt, from, size int64, code *jitCode) (next int64, err error) {
	next = from
	if next == 0 {
		if next, err = d.header(r, size); err != nil || next == 0 {
			return next, err
		}
	}
	var head [jitdumpRecord]byte
	for size-next >= jitdumpRecord {
		if _, err := r.ReadAt(head[:], next); err != nil {
			return next, fmt.Errorf("jitdump: %w", err)
		}
		kind, total := d.order.Uint32(head[:]), int64(d.order.Uint32(head[4:]))
		if total == 0 && kind == 0 {
			return next, nil // room that is not written yet
		}
		if total < jitdumpRecord {
			return next, fmt.Errorf("jitdump: %w: record of %d bytes at %#x", ErrMalformed, total, next)
		}
		if next+total > size {
			return next, nil
		}
		body := io.NewSectionReader(r, next+jitdumpRecord, total-jitdumpRecord)
		switch kind {
		case jitdumpLoad:
			err = d.load(body, code)
		case jitdumpMove:
			err = d.move(body, code)
		case jitdumpDebugInfo:
			err = d.debugInfo(body)
		}
		if err != nil {
			return next, fmt.Errorf("jitdump: record at %#x: %w", next, err)
		}
		next += total
	}
	return next, nil
}

func (d *jitdump) header(r io.ReaderAt, size int64) (next int64, err error) {
	var head [jitdumpHeader]byte
	if size < jitdumpHeader {
		return 0, nil
	}
	if _, err := r.ReadAt(head[:], 0); err != nil {
		return 0, fmt.Errorf("jitdump: %w", err)
	}
	switch uint32(jitdumpMagic) {
	case binary.LittleEndian.Uint32(head[:]):
		d.order = binary.LittleEndian
	case binary.BigEndian.Uint32(head[:]):
		d.order = binary.BigEndian
	default:
		return 0, fmt.Errorf("jitdump: %w: no jitdump file", ErrMalformed)
	}
	length := int64(d.order.Uint32(head[8:]))
	if length < jitdumpHeader || length > maxJITDumpHeader {
		return 0, fmt.Errorf("jitdump: %w: header of %d bytes", ErrMalformed, length)
	}
	if length > size {
		return 0, nil
	}
	return length, nil
}

// load reads: pid, tid (4 bytes each), address where the code runs, address of
// its bytes, size, number (8 bytes each), the name with a 0 at its end, code.
func (d *jitdump) load(r *io.SectionReader, code *jitCode) error {
	const fixed = 40
	if r.Size() <= fixed {
		return fmt.Errorf("code: %w", ErrMalformed)
	}
	buf := make([]byte, min(r.Size(), fixed+256))
	for {
		if _, err := r.ReadAt(buf, 0); err != nil {
			return err
		}
		name, _, ok := bytes.Cut(buf[fixed:], []byte{0})
		if !ok {
			if int64(len(buf)) == r.Size() || len(buf) > maxJITDumpName {
				return fmt.Errorf("code without a name: %w", ErrMalformed)
			}
			buf = make([]byte, min(r.Size(), int64(2*len(buf))))
			continue
		}
		addr, size := d.order.Uint64(buf[8:]), d.order.Uint64(buf[24:])
		var lines *jitLines
		if d.lines != nil && d.linesAddr == d.order.Uint64(buf[16:]) {
			lines = d.lines
		}
		d.lines = nil
		if len(name) > 0 {
			code.add(addr, size, string(name), lines)
		}
		return nil
	}
}

// move reads: pid, tid, address where the code runs now, where it ran, address
// of its bytes, size, number.
func (d *jitdump) move(r *io.SectionReader, code *jitCode) error {
	var buf [48]byte
	if _, err := r.ReadAt(buf[:], 0); err != nil {
		return fmt.Errorf("moved code: %w", ErrMalformed)
	}
	to, from, size := d.order.Uint64(buf[8:]), d.order.Uint64(buf[16:]), d.order.Uint64(buf[32:])
	if old, ok := code.find(from); ok {
		code.add(to, size, old.name, nil)
	}
	return nil
}

// debugInfo reads: address of the code's bytes, number of lines (8 bytes each),
// then for each its address (8), line and discriminator (4 each), and file name;
// "\xff\0" repeats the name before.
func (d *jitdump) debugInfo(r *io.SectionReader) error {
	d.lines = nil
	if r.Size() > maxJITDumpDebug {
		return nil
	}
	if r.Size() < 16 {
		return fmt.Errorf("lines: %w", ErrMalformed)
	}
	buf := make([]byte, r.Size())
	if _, err := r.ReadAt(buf, 0); err != nil {
		return err
	}
	addr, count := d.order.Uint64(buf), d.order.Uint64(buf[8:])
	lines := &jitLines{}
	for buf = buf[16:]; count > 0 && len(buf) > 16 && len(lines.rows) < maxJITDumpEntries; count-- {
		name, rest, ok := bytes.Cut(buf[16:], []byte{0})
		if !ok {
			return fmt.Errorf("lines: %w", ErrMalformed)
		}
		file := int32(len(lines.files)) - 1
		if string(name) != "\xff" && (file < 0 || lines.files[file] != string(name)) {
			lines.files = append(lines.files, string(name))
			file++
		}
		if file >= 0 {
			lines.rows = append(lines.rows, jitLine{d.order.Uint64(buf), int32(d.order.Uint32(buf[8:])), file})
		}
		buf = rest
	}
	if len(lines.rows) > 0 {
		slices.SortStableFunc(lines.rows, func(a, b jitLine) int { return cmp.Compare(a.addr, b.addr) })
		d.lines, d.linesAddr = lines, addr
	}
	return nil
}
