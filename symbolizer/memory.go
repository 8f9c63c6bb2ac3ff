package symbolizer

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
)

// OpenMemory opens the memory of a process for reading: offsets are addresses.
// It needs the right to trace the process. It fails with ErrNoProcess.
func OpenMemory(pid int) (*os.File, error) {
	f, err := os.Open(filepath.Join(procRoot, strconv.Itoa(pid), "mem"))
	if err != nil {
		return nil, procError(pid, err)
	}
	return f, nil
}

// memory reads values from the memory of a 64-bit process of this machine's
// byte order.
type memory struct{ r io.ReaderAt }

func (m memory) read(buf []byte, addr uint64) error {
	if addr == 0 || addr > math.MaxInt64 {
		return fmt.Errorf("read memory at %#x: %w", addr, ErrUnmapped)
	}
	if n, err := m.r.ReadAt(buf, int64(addr)); n < len(buf) {
		return fmt.Errorf("read memory at %#x: %w", addr, err)
	}
	return nil
}

func (m memory) uint64(addr uint64) (uint64, error) {
	var b [8]byte
	err := m.read(b[:], addr)
	return binary.NativeEndian.Uint64(b[:]), err
}

// words reads n words of 8 bytes.
func (m memory) words(addr uint64, n int) ([]uint64, error) {
	buf := make([]byte, 8*n)
	if err := m.read(buf, addr); err != nil {
		return nil, err
	}
	out := make([]uint64, n)
	for i := range out {
		out[i] = binary.NativeEndian.Uint64(buf[8*i:])
	}
	return out, nil
}

// bytes reads at most limit of n bytes.
func (m memory) bytes(addr, n, limit uint64) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	buf := make([]byte, min(n, limit))
	return buf, m.read(buf, addr)
}

func nativeWord(b []byte) uint64 { return binary.NativeEndian.Uint64(b) }
