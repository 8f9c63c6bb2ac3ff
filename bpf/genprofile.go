package bpf

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -cflags "-O2 -g -Wall -Werror -mcpu=v3" -type sample_event -type python -type target -type mapping -type unwind_page -type unwind_rule -type total_key -type total -type waiting -type allocation_key -type allocation Profile profile.bpf.c
