package recording

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// trailerMagic begins the last bytes of a file with an index.
const trailerMagic = "SBXINDEX"

// BlockInfo is a block's header and where the block is in its file.
type BlockInfo struct {
	Header Header
	Offset int64
}

// end is where the block ends.
func (b *BlockInfo) end() int64 { return b.Offset + headerSize + int64(b.Header.Stored) }

// indexBlock returns the stored form of an index at offset and the trailer that
// points to it.
func indexBlock(blocks []BlockInfo, offset int64) ([]byte, error) {
	raw := binary.AppendUvarint(nil, uint64(len(blocks)))
	var last BlockInfo
	var h Header
	for i := range blocks {
		b := &blocks[i].Header
		raw = append(raw, byte(b.Kind), b.Flags)
		raw = binary.AppendVarint(raw, blocks[i].Offset-last.Offset)
		raw = binary.AppendVarint(raw, int64(b.Seq-last.Header.Seq))
		raw = binary.AppendUvarint(raw, uint64(b.Stored))
		raw = binary.AppendUvarint(raw, uint64(b.Raw))
		raw = binary.AppendVarint(raw, int64(b.First-last.Header.First))
		raw = binary.AppendUvarint(raw, b.Last-b.First)
		raw = binary.AppendVarint(raw, b.Wall-last.Header.Wall)
		raw = binary.AppendUvarint(raw, uint64(b.Events))
		raw = binary.AppendUvarint(raw, uint64(b.Calls))
		raw = binary.AppendUvarint(raw, b.Lost)
		raw = binary.AppendUvarint(raw, uint64(b.Marks))
		last = blocks[i]
		h.Recording, h.Seq, h.Wall = b.Recording, max(h.Seq, b.Seq+1), b.Wall
	}
	if len(raw) > maxIndexRaw {
		return nil, nil // the blocks are found one by one
	}
	h.Version, h.Kind = Version, BlockIndex
	p, err := newPacker()
	if err != nil {
		return nil, err
	}
	out := p.pack(&h, raw)
	return appendTrailer(out, offset), nil
}

// appendTrailer appends the last bytes of a file whose index is at offset.
func appendTrailer(dst []byte, offset int64) []byte {
	at := len(dst)
	dst = append(dst, trailerMagic...)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(offset))
	dst = append(dst, make([]byte, 12)...)
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[at:], castagnoli))
}

// parseTrailer returns the offset of the index of a file of that size.
func parseTrailer(b []byte, size int64) (int64, bool) {
	if len(b) != trailerSize || string(b[:len(trailerMagic)]) != trailerMagic ||
		binary.LittleEndian.Uint32(b[28:]) != crc32.Checksum(b[:28], castagnoli) {
		return 0, false
	}
	offset := binary.LittleEndian.Uint64(b[8:])
	return int64(offset), offset <= uint64(size)-trailerSize
}

// parseIndex reads the payload of an index block of a file in which the blocks
// end at end.
func parseIndex(h *Header, raw []byte, end int64) ([]BlockInfo, error) {
	c := cursor{b: raw, what: "index"}
	out := make([]BlockInfo, c.count(int(end/headerSize), 13))
	var last BlockInfo
	for i := range out {
		b := &out[i]
		b.Header.Version, b.Header.Recording = h.Version, h.Recording
		b.Header.Kind, b.Header.Flags = BlockKind(c.byte()), c.byte()
		b.Offset = last.Offset + c.int()
		b.Header.Seq = last.Header.Seq + uint64(c.int())
		b.Header.Stored, b.Header.Raw = c.uint32(), c.uint32()
		b.Header.First = last.Header.First + uint64(c.int())
		b.Header.Last = b.Header.First + c.uint()
		b.Header.Wall = last.Header.Wall + c.int()
		b.Header.Events, b.Header.Calls = c.uint32(), c.uint32()
		b.Header.Lost, b.Header.Marks = c.uint(), c.uint32()
		if b.Offset < 0 || b.Offset > end-headerSize-int64(b.Header.Stored) {
			c.fail("block at %d of %d", b.Offset, end)
			break
		}
		last = *b
	}
	if err := c.done(); err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	return out, nil
}
