package recording

import (
	"encoding/binary"
	"fmt"
)

// appendSection appends a section of a payload.
func appendSection(dst []byte, id uint64, b []byte) []byte {
	dst = binary.AppendUvarint(dst, id)
	dst = binary.AppendUvarint(dst, uint64(len(b)))
	return append(dst, b...)
}

// sections are the sections of a payload by id.
type sections [secRows + 1][]byte

// parseSections finds the sections of a payload; of two with one id the later.
func parseSections(raw []byte) (*sections, error) {
	var s sections
	c := cursor{b: raw, what: "sections"}
	for len(c.b) > 0 && c.err == nil {
		id, n := c.uint(), c.uint()
		b := c.bytes(n)
		if id < uint64(len(s)) {
			s[id] = b
		}
	}
	return &s, c.err
}

// cursor reads numbers from bytes. After the first error it reads zeros.
type cursor struct {
	b    []byte
	what string // for errors
	err  error
}

func (c *cursor) fail(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf("%s: "+format+": %w", append(append([]any{c.what}, args...), ErrCorrupt)...)
	}
	c.b = nil
}

// uint reads an unsigned number.
func (c *cursor) uint() uint64 {
	if len(c.b) > 0 && c.b[0] < 0x80 {
		v := c.b[0]
		c.b = c.b[1:]
		return uint64(v)
	}
	v, n := binary.Uvarint(c.b)
	if n <= 0 {
		c.fail("ends in the middle")
		return 0
	}
	c.b = c.b[n:]
	return v
}

// int reads a signed number: zigzag.
func (c *cursor) int() int64 {
	v := c.uint()
	return int64(v>>1) ^ -int64(v&1)
}

// upTo reads an unsigned number that must not exceed most.
func (c *cursor) upTo(most uint64) uint64 {
	v := c.uint()
	if v > most {
		c.fail("%d is too large", v)
		return 0
	}
	return v
}

func (c *cursor) uint32() uint32 { return uint32(c.upTo(1<<32 - 1)) }

// count reads how many entries follow, each of which takes size bytes at least.
func (c *cursor) count(most, size int) int {
	n := c.upTo(uint64(most))
	if n > uint64(len(c.b)/size) {
		c.fail("%d entries in %d bytes", n, len(c.b))
		return 0
	}
	return int(n)
}

func (c *cursor) bytes(n uint64) []byte {
	if n > uint64(len(c.b)) {
		c.fail("%d bytes of %d", n, len(c.b))
		return nil
	}
	b := c.b[:n:n]
	c.b = c.b[n:]
	return b
}

func (c *cursor) byte() byte {
	if len(c.b) == 0 {
		c.fail("ends in the middle")
		return 0
	}
	v := c.b[0]
	c.b = c.b[1:]
	return v
}

// string reads the index of a string.
func (c *cursor) string(table []string) string {
	i := c.uint()
	if i >= uint64(len(table)) {
		c.fail("string %d of %d", i, len(table))
		return ""
	}
	return table[i]
}

// done complains about what is left.
func (c *cursor) done() error {
	if c.err == nil && len(c.b) > 0 {
		c.fail("%d bytes too many", len(c.b))
	}
	return c.err
}

// strings collects the strings of a block; index 0 is the empty one.
type stringTable struct {
	index map[string]uint64
	bytes []byte
}

func (t *stringTable) reset() {
	if t.index == nil {
		t.index = make(map[string]uint64)
	}
	clear(t.index)
	t.bytes = t.bytes[:0]
}

// add returns the index of s.
func (t *stringTable) add(s string) uint64 {
	if s == "" {
		return 0
	}
	i, ok := t.index[s]
	if !ok {
		i = uint64(len(t.index)) + 1
		t.index[s] = i
		t.bytes = binary.AppendUvarint(t.bytes, uint64(len(s)))
		t.bytes = append(t.bytes, s...)
	}
	return i
}

// section is the count of strings and the strings.
func (t *stringTable) section(dst []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(t.index))), t.bytes...)
}

func parseStrings(b []byte) ([]string, error) {
	c := cursor{b: b, what: "strings"}
	if len(b) == 0 {
		return []string{""}, nil
	}
	n := c.count(1<<20, 1)
	out := make([]string, 1, n+1)
	for range n {
		out = append(out, string(c.bytes(c.uint())))
	}
	return out, c.done()
}
