// Package bpf holds the eBPF programs: C sources, and the Go bindings and
// objects that bpf2go makes of them. Both are committed, so that building
// sbxtrace takes Go alone; `make generate` makes them anew with Debian's
// clang-19 (another clang gives other bytes).
package bpf

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -cflags "-O2 -g -Wall -Werror -mcpu=v3" -type event_header -type call_event -type args_event -type stack_event -type task_event -type lost_event -type usdt_event -type usdt_text_event -type python_event -type usdt_spec -type process -type latency -type bucket_key Trace trace.bpf.c
