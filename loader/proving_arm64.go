package loader

// provingCode is the machine code of the proving ground's functions. A nop has
// four bytes on arm64, so there is none to optimise.
var provingCode = [provingFunctions][]byte{
	provingEmulated: {0x01, 0x00, 0x00, 0x14, 0xc0, 0x03, 0x5f, 0xd6}, // b .+4; ret
	provingReturn:   {0x01, 0x00, 0x00, 0x14, 0xc0, 0x03, 0x5f, 0xd6}, // b .+4; ret
	provingStepped:  {0xe0, 0x03, 0x00, 0xaa, 0xc0, 0x03, 0x5f, 0xd6}, // mov x0, x0; ret
	provingNop:      {0x1f, 0x20, 0x03, 0xd5, 0xc0, 0x03, 0x5f, 0xd6}, // nop; ret
}

// Lengths of the probed instructions of provingNop and provingStepped.
const (
	nopSize     = 4
	steppedSize = 4
)
