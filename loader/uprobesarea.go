package loader

import (
	"bufio"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"unsafe"
)

// uprobesArea copies the page that the kernel maps into a process at its first
// uprobe that needs it: the trampoline of return probes, then copies of the
// instructions that are executed out of line (kernel/events/uprobes.c).
func uprobesArea() ([]byte, error) {
	addr, err := findMapping("[uprobes]")
	if err != nil {
		return nil, err
	}
	return readMapping(addr, os.Getpagesize())
}

// findMapping returns the address of this process's mapping of that name.
func findMapping(name string) (uintptr, error) {
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if !strings.HasSuffix(lines.Text(), " "+name) {
			continue
		}
		var addr uintptr
		if _, err := fmt.Sscanf(lines.Text(), "%x-", &addr); err != nil {
			return 0, fmt.Errorf("mapping %s: %w", name, err)
		}
		return addr, nil
	}
	if err := lines.Err(); err != nil {
		return 0, fmt.Errorf("read own mappings: %w", err)
	}
	return 0, fmt.Errorf("no mapping %s", name)
}

// readMapping copies memory that may be executable only: the kernel hands such
// pages out through no interface, and whether an instruction may read them is up
// to the machine.
func readMapping(addr uintptr, size int) (content []byte, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			content, err = nil, fmt.Errorf("read own memory at %#x: %v", addr, r)
		}
	}()
	// The address is the kernel's, not the garbage collector's.
	start := *(*unsafe.Pointer)(unsafe.Pointer(&addr))
	return append([]byte(nil), unsafe.Slice((*byte)(start), size)...), nil
}
