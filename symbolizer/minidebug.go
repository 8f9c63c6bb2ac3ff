package symbolizer

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"

	"github.com/ulikunitz/xz"
)

// Limits of .gnu_debugdata. Fedora's largest, of libLLVM, inflates to about
// 10 MiB; xz can claim dictionaries of 4 GiB, which would be allocated.
const (
	maxMiniDebug     = 256 << 20
	maxMiniDebugDict = 64 << 20
)

// miniDebugSymbols reads the symbol table of the ELF file that is packed with
// xz in .gnu_debugdata.
func (b *Binary) miniDebugSymbols(code []addrRange) (syms []symbol, err error) {
	defer guard(&err, ".gnu_debugdata")
	s := b.section(".gnu_debugdata")
	if s == nil {
		return nil, nil
	}
	packed, err := b.sectionData(s, maxMiniDebug)
	if err != nil {
		return nil, err
	}
	size, dict, err := xzExtent(packed)
	if err != nil {
		return nil, fmt.Errorf("%s: .gnu_debugdata: %w", b.Path, err)
	}
	if size > maxMiniDebug || dict > maxMiniDebugDict {
		return nil, fmt.Errorf("%s: .gnu_debugdata of %d bytes with a dictionary of %d: %w", b.Path, size, dict, ErrTooLarge)
	}
	r, err := xz.ReaderConfig{SingleStream: true}.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("%s: .gnu_debugdata: %w: %w", b.Path, ErrMalformed, err)
	}
	data, err := readBounded(r, size, b.Path+": .gnu_debugdata")
	if err != nil {
		return nil, err
	}
	mini, err := Options{NoDebugFiles: true}.NewBinary(bytes.NewReader(data), int64(len(data)), b.Path+"(.gnu_debugdata)")
	if err != nil {
		return nil, err
	}
	return mini.symbolTable(elf.SHT_SYMTAB, SourceMiniDebug, code)
}

// xzExtent walks the blocks and LZMA2 chunks of the first xz stream without
// decoding them: the bytes they unpack to and the largest dictionary that they
// ask for. The layout is that of "The .xz File Format", sections 2 and 3, and of
// LZMA2's chunk headers; only LZMA2 alone is accepted as filter, which is what
// producers of .gnu_debugdata write.
func xzExtent(stream []byte) (size, dict uint64, err error) {
	bad := func(what string) (uint64, uint64, error) {
		return 0, 0, fmt.Errorf("%w: xz: %s", ErrMalformed, what)
	}
	const streamHeader = 12
	if len(stream) < streamHeader || string(stream[:6]) != "\xfd7zXZ\x00" {
		return bad("no stream header")
	}
	checkSizes := map[byte]int{0: 0, 1: 4, 4: 8, 10: 32} // none, CRC32, CRC64, SHA-256
	check, ok := checkSizes[stream[7]]
	if !ok {
		return bad("unknown check")
	}
	at := streamHeader
	for {
		if at >= len(stream) {
			return bad("truncated")
		}
		if stream[at] == 0 { // the index: all blocks are seen
			return size, dict, nil
		}
		headerLen := (int(stream[at]) + 1) * 4
		if headerLen > len(stream)-at {
			return bad("truncated block header")
		}
		d, ok := xzBlockDictionary(stream[at : at+headerLen])
		if !ok {
			return bad("block header")
		}
		dict = max(dict, d)
		body := at + headerLen
		unpacked, used, ok := lzma2Extent(stream[body:])
		if !ok {
			return bad("truncated block")
		}
		size += unpacked
		at = body + (used+3)&^3 + check
	}
}

// xzBlockDictionary returns the dictionary size of a block header whose only
// filter is LZMA2.
func xzBlockDictionary(header []byte) (size uint64, ok bool) {
	const filterLZMA2 = 0x21
	flags, at := header[1], 2
	if flags&0x03 != 0 {
		return 0, false // more than one filter
	}
	for _, present := range []byte{0x40, 0x80} { // packed and unpacked size
		if flags&present == 0 {
			continue
		}
		for at < len(header) && header[at]&0x80 != 0 {
			at++
		}
		at++
	}
	if at+3 > len(header) || header[at] != filterLZMA2 || header[at+1] != 1 {
		return 0, false
	}
	code := header[at+2]
	switch {
	case code > 40:
		return 0, false
	case code == 40:
		return 1<<32 - 1, true
	}
	return uint64(2|code&1) << (code/2 + 11), true
}

// lzma2Extent walks LZMA2 chunks up to the end marker: the bytes that they
// unpack to and the bytes that they take.
func lzma2Extent(p []byte) (unpacked uint64, used int, ok bool) {
	for at := 0; at < len(p); {
		control := p[at]
		switch {
		case control == 0:
			return unpacked, at + 1, true
		case control < 0x80: // stored
			if at+3 > len(p) {
				return 0, 0, false
			}
			n := int(binary.BigEndian.Uint16(p[at+1:])) + 1
			unpacked += uint64(n)
			at += 3 + n
		default:
			if at+5 > len(p) {
				return 0, 0, false
			}
			unpacked += uint64(control&0x1f)<<16 + uint64(binary.BigEndian.Uint16(p[at+1:])) + 1
			packed := int(binary.BigEndian.Uint16(p[at+3:])) + 1
			at += 5 + packed
			if control >= 0xc0 { // new properties
				at++
			}
		}
	}
	return 0, 0, false
}
