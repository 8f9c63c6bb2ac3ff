package loader

// provingCode is the machine code of the proving ground's functions.
var provingCode = [provingFunctions][]byte{
	provingEmulated: {0x55, 0x5d, 0xc3},                   // push %rbp; pop %rbp; ret
	provingReturn:   {0x55, 0x5d, 0xc3},                   // push %rbp; pop %rbp; ret
	provingStepped:  {0x48, 0x89, 0xc0, 0xc3},             // mov %rax,%rax; ret
	provingNop:      {0x0f, 0x1f, 0x40, 0x00, 0xc3},       // nopl 0(%rax); ret
	provingNop5:     {0x0f, 0x1f, 0x44, 0x00, 0x00, 0xc3}, // nopl 0(%rax,%rax,1); ret
}

// Lengths of the probed instructions of provingNop and provingStepped.
const (
	nopSize     = 4
	steppedSize = 3
)
