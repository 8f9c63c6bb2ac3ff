package exporter

import "encoding/binary"

// The wire format of protocol buffers, as far as the exports need it.

func appendVarintField(b []byte, field int, v uint64) []byte {
	b = binary.AppendUvarint(b, uint64(field)<<3)
	return binary.AppendUvarint(b, v)
}

func appendFixed64Field(b []byte, field int, v uint64) []byte {
	b = binary.AppendUvarint(b, uint64(field)<<3|1)
	return binary.LittleEndian.AppendUint64(b, v)
}

func appendBytesField[T string | []byte](b []byte, field int, v T) []byte {
	b = binary.AppendUvarint(b, uint64(field)<<3|2)
	b = binary.AppendUvarint(b, uint64(len(v)))
	return append(b, v...)
}

// appendMessageField appends a message whose content fill appends.
func appendMessageField(b []byte, field int, fill func(b []byte) []byte) []byte {
	b = binary.AppendUvarint(b, uint64(field)<<3|2)
	// Room for the length, which most often takes one byte.
	at := len(b)
	b = fill(append(b, 0))
	n := len(b) - at - 1
	if n < 0x80 {
		b[at] = byte(n)
		return b
	}
	var size [binary.MaxVarintLen64]byte
	w := binary.PutUvarint(size[:], uint64(n))
	b = append(b, size[1:w]...)
	copy(b[at+w:], b[at+1:at+1+n])
	copy(b[at:], size[:w])
	return b
}
