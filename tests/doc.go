// Package tests holds what can only be tested end to end: the sbxtrace binary
// traces programs that count their own calls (package internal/targets), and
// what it printed is compared with what happened, call by call.
//
// The tests need root and a kernel that can trace. The binary is built once,
// or taken from $SBXTRACE_BIN; the targets are built by the compilers of the
// machine, or taken from $SBXTRACE_TARGETS.
package tests
