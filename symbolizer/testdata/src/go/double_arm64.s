#include "textflag.h"

// func double(x int64) int64
TEXT ·double(SB), NOSPLIT, $0-16
	MOVD x+0(FP), R0
	ADD  R0, R0, R0
	MOVD R0, ret+8(FP)
	RET
