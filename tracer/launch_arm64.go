package tracer

// breakpoint is BRK #0, little-endian.
var breakpoint = []byte{0x00, 0x00, 0x20, 0xd4}
