package exporter

import (
	"encoding/binary"
	"errors"
)

// errWire says that bytes are no protobuf message.
var errWire = errors.New("not a protobuf message")

// wireField is one field of a protobuf message.
type wireField struct {
	number uint64
	value  uint64 // of a varint or fixed field
	bytes  []byte // of a length-delimited field
}

// nextField splits the first field off a message.
func nextField(msg []byte) (f wireField, rest []byte, err error) {
	tag, n := binary.Uvarint(msg)
	if n <= 0 || tag>>3 == 0 {
		return f, nil, errWire
	}
	f.number, msg = tag>>3, msg[n:]
	size := uint64(0)
	switch tag & 7 {
	case 0:
		if f.value, n = binary.Uvarint(msg); n <= 0 {
			return f, nil, errWire
		}
		return f, msg[n:], nil
	case 1:
		size = 8
	case 5:
		size = 4
	case 2:
		if size, n = binary.Uvarint(msg); n <= 0 {
			return f, nil, errWire
		}
		msg = msg[n:]
	default:
		return f, nil, errWire
	}
	if size > uint64(len(msg)) {
		return f, nil, errWire
	}
	if tag&7 == 2 {
		f.bytes = msg[:size]
	}
	return f, msg[size:], nil
}

// Numbers of fields in profile.proto.
const (
	profileSample   = 2
	profileMapping  = 3
	profileLocation = 4
	profileFunction = 5
	profileString   = 6
	sampleLabel     = 3
	locationLine    = 4
)

// What messages of profile.proto take in memory at most, in bytes, with what
// refers to them. Facts: sizes of the types in package profile on 64-bit
// machines, its maps by id, and its label maps per sample.
const (
	sampleMemory  = 208
	labelMemory   = 400
	mappingMemory = 300
	lineMemory    = 40
	entityMemory  = 240 // a location, a function
	varintMemory  = 40  // a packed number: an id, the pointer it becomes, growth
)

// protoMemory estimates what a profile.proto takes in memory when it is read.
func protoMemory(data []byte) (int64, error) {
	var need int64
	for len(data) > 0 {
		f, rest, err := nextField(data)
		if err != nil {
			return 0, err
		}
		data = rest
		switch f.number {
		case profileSample:
			need += sampleMemory
			err = nested(f.bytes, sampleLabel, &need, labelMemory)
		case profileLocation:
			need += entityMemory
			err = nested(f.bytes, locationLine, &need, lineMemory)
		case profileFunction:
			need += entityMemory
		case profileMapping:
			need += mappingMemory
		case profileString:
			need += 24 + int64(len(f.bytes))
		default:
			need += 48 + 8*int64(len(f.bytes))
		}
		if err != nil {
			return 0, err
		}
	}
	return need, nil
}

// nested adds what the fields of a message take: each of number sub takes each,
// packed numbers by their count.
func nested(msg []byte, sub uint64, need *int64, each int64) error {
	for len(msg) > 0 {
		f, rest, err := nextField(msg)
		if err != nil {
			return err
		}
		msg = rest
		switch {
		case f.number == sub:
			*need += each
		case f.bytes != nil:
			for _, b := range f.bytes {
				if b < 0x80 {
					*need += varintMemory
				}
			}
		default:
			*need += varintMemory
		}
	}
	return nil
}
