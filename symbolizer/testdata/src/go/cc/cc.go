// Package cc calls C, so that the external linker makes the program.
package cc

/*
#include <stdlib.h>
__attribute__((noinline)) int c_triple(int x) { return abs(x) * 3; }
*/
import "C"

// Triple calls C.
func Triple(x int) int { return int(C.c_triple(C.int(x))) }
