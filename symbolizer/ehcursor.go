package symbolizer

import (
	"bytes"
	"fmt"
)

// ehCursor reads fields of one .eh_frame entry. After the first fault it keeps
// its error and yields zeroes, so that a parser can check once at the end.
type ehCursor struct {
	p   *ehParser
	at  int
	end int
	err error
}

func (p *ehParser) cursor(at, end int) ehCursor {
	c := ehCursor{p: p, at: at, end: end}
	if at > end || end > len(p.data) {
		c.at, c.end = 0, 0
		c.fail("entry too short")
	}
	return c
}

func (c *ehCursor) fail(what string) {
	if c.err == nil {
		c.err = fmt.Errorf("%w: %s at %#x", ErrMalformed, what, c.at)
	}
}

// bytes returns the next n bytes, or nil after setting the error.
func (c *ehCursor) bytes(n int) []byte {
	if c.err != nil {
		return nil
	}
	if n > c.end-c.at {
		c.fail("truncated field")
		return nil
	}
	b := c.p.data[c.at : c.at+n]
	c.at += n
	return b
}

func (c *ehCursor) u8() byte {
	if b := c.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

// fixed reads an unsigned integer of 2, 4 or 8 bytes.
func (c *ehCursor) fixed(n int) uint64 {
	b := c.bytes(n)
	if b == nil {
		return 0
	}
	switch n {
	case 2:
		return uint64(c.p.layout.Order.Uint16(b))
	case 4:
		return uint64(c.p.layout.Order.Uint32(b))
	}
	return c.p.layout.Order.Uint64(b)
}

// uleb reads an unsigned LEB128 number. Bits beyond 64 are lost, as in every
// consumer.
func (c *ehCursor) uleb() (v uint64) {
	for shift := uint(0); c.err == nil; shift += 7 {
		b := c.u8()
		if shift < 64 {
			v |= uint64(b&0x7f) << shift
		}
		if b&0x80 == 0 {
			break
		}
	}
	return v
}

// sleb reads a signed LEB128 number.
func (c *ehCursor) sleb() (v int64) {
	for shift := uint(0); c.err == nil; {
		b := c.u8()
		if shift < 64 {
			v |= int64(b&0x7f) << shift
		}
		shift += 7
		if b&0x80 == 0 {
			if b&0x40 != 0 && shift < 64 {
				v |= -1 << shift
			}
			break
		}
	}
	return v
}

// str reads a zero-terminated string.
func (c *ehCursor) str() string {
	if c.err != nil {
		return ""
	}
	n := bytes.IndexByte(c.p.data[c.at:c.end], 0)
	if n < 0 {
		c.fail("unterminated string")
		return ""
	}
	s := string(c.p.data[c.at : c.at+n])
	c.at += n + 1
	return s
}

// take returns a cursor over the next n bytes and steps over them.
func (c *ehCursor) take(n uint64) ehCursor {
	if c.err == nil && n > uint64(c.end-c.at) {
		c.fail("truncated block")
	}
	if c.err != nil {
		return ehCursor{p: c.p, err: c.err}
	}
	sub := ehCursor{p: c.p, at: c.at, end: c.at + int(n)}
	c.at += int(n)
	return sub
}

// rest returns what is left of the entry.
func (c *ehCursor) rest() []byte {
	if c.err != nil {
		return nil
	}
	return c.p.data[c.at:c.end:c.end]
}

// pointer reads a pointer with a DW_EH_PE encoding. An indirect pointer is
// returned as the address of the word that holds it: the loader fills that word.
// A value of zero stays zero, whatever the base: it means none.
func (c *ehCursor) pointer(enc byte, function uint64) uint64 {
	if enc == peOmit {
		return 0
	}
	size := c.p.layout.PointerSize
	if enc&peBase == peAligned {
		pad := -(c.p.layout.Addr + uint64(c.at)) & uint64(size-1)
		c.take(pad)
		return c.fixed(size)
	}
	place := c.p.layout.Addr + uint64(c.at)
	var v uint64
	switch enc & peFormat {
	case peAbsptr:
		v = c.fixed(size)
	case peUleb:
		v = c.uleb()
	case peUdata2:
		v = c.fixed(2)
	case peUdata4:
		v = c.fixed(4)
	case peUdata8, peSdata8:
		v = c.fixed(8)
	case peSleb:
		v = uint64(c.sleb())
	case peSdata2:
		v = uint64(int64(int16(c.fixed(2))))
	case peSdata4:
		v = uint64(int64(int32(c.fixed(4))))
	default:
		c.fail("pointer encoding")
		return 0
	}
	if v == 0 {
		return 0
	}
	switch enc & peBase {
	case 0:
	case pePcrel:
		v += place
	case peTextrel:
		v += c.p.layout.TextBase
	case peDatarel:
		v += c.p.layout.DataBase
	case peFuncrel:
		v += function
	default:
		c.fail("pointer base")
		return 0
	}
	if size == 4 {
		v = uint64(uint32(v))
	}
	return v
}
