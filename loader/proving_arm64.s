#include "textflag.h"

// func callNative(addr unsafe.Pointer, n int)
TEXT ·callNative(SB), NOSPLIT, $16-16
	MOVD addr+0(FP), R19
	MOVD n+8(FP), R20
loop:
	BL   (R19)
	SUBS $1, R20, R20
	BNE  loop
	RET
