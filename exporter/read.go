package exporter

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/google/pprof/profile"

	"github.com/sbxtrace/sbxtrace/internal/term"
)

// ErrTooLarge is matched by the error for a profile that would take more memory
// than it may.
var ErrTooLarge = errors.New("the profile is too large")

// Bounds of what is read, in bytes.
const (
	// maxInput is of a file, uncompressed.
	maxInput = 1 << 30
	// maxMemory is of a profile in memory, estimated before it is made: a
	// few bytes of a made-up file can stand for thousands.
	maxMemory = 4 << 30
)

// Read reads a profile: profile.proto, compressed by gzip or not, or folded
// stacks. It tells them apart by content. What it returns is valid by
// [profile.Profile.CheckValid]. Errors match [ErrTooLarge] or [ErrFolded], or
// tell what is wrong with the protobuf.
func Read(r io.Reader) (*profile.Profile, error) { return read(r, maxInput, maxMemory) }

func read(r io.Reader, maxInput, maxMemory int64) (*profile.Profile, error) {
	data, err := readAll(r, maxInput)
	if err != nil {
		return nil, err
	}
	if len(data) >= 2 && data[0] == 0x1f && data[1] == 0x8b {
		z, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			return nil, fmt.Errorf("decompress: %w", err)
		}
		if data, err = readAll(z, maxInput); err != nil {
			return nil, fmt.Errorf("decompress: %w", err)
		}
	}
	if len(data) == 0 {
		return nil, errors.New("the file is empty")
	}
	if looksFolded(data) {
		return readFolded(data, maxMemory)
	}
	need, err := protoMemory(data)
	if err != nil {
		return nil, fmt.Errorf("neither a pprof profile nor folded stacks: %w", err)
	}
	if need > maxMemory {
		return nil, fmt.Errorf("%w: it would take %s of memory, more than %s", ErrTooLarge, term.Bytes(need), term.Bytes(maxMemory))
	}
	p, err := profile.ParseUncompressed(data)
	if err == nil {
		err = p.CheckValid()
	}
	if err != nil {
		return nil, fmt.Errorf("read pprof profile: %w", err)
	}
	if len(p.SampleType) == 0 {
		return nil, errors.New("read pprof profile: it has no sample types")
	}
	return p, nil
}

// readAll reads r, which may have no more than limit bytes.
func readAll(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%w: more than %s", ErrTooLarge, term.Bytes(limit))
	}
	return data, nil
}

// looksFolded reports whether data begins like text. A profile.proto begins
// with a field's tag, hardly ever a printable character, and has control
// characters soon.
func looksFolded(data []byte) bool {
	head := data[:min(len(data), 1024)]
	for len(head) > 0 {
		r, n := utf8.DecodeRune(head)
		if r == utf8.RuneError && n <= 1 {
			// The cut may have gone through a character.
			return len(data) > 1024 && len(head) < utf8.UTFMax
		}
		if r < ' ' && r != '\n' && r != '\r' && r != '\t' {
			return false
		}
		head = head[n:]
	}
	return true
}
