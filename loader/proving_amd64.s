#include "textflag.h"

// func callNative(addr unsafe.Pointer, n int)
TEXT ·callNative(SB), NOSPLIT, $16-16
	MOVQ addr+0(FP), R12
	MOVQ n+8(FP), R13
loop:
	CALL R12
	DECQ R13
	JNZ  loop
	RET
