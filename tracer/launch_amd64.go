package tracer

// breakpoint is INT3.
var breakpoint = []byte{0xcc}
