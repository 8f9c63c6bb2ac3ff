package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
)

// cpioWriter writes the archive form that the kernel unpacks as its first root
// file system ("newc", Documentation/driver-api/early-userspace/buffer-format).
type cpioWriter struct {
	w     *bufio.Writer
	inode uint32
	err   error
}

// File types of the mode field, which are those of stat(2).
const (
	modeDir     = 0o040000
	modeRegular = 0o100000
	modeSymlink = 0o120000
	modeChar    = 0o020000
)

func newCPIO(w io.Writer) *cpioWriter { return &cpioWriter{w: bufio.NewWriterSize(w, 1<<20)} }

// entry writes one member's header and name; its content of size bytes follows.
// Names have no leading slash.
func (c *cpioWriter) entry(name string, mode uint32, size, major, minor uint32) {
	if c.err != nil {
		return
	}
	c.inode++
	links := 1
	if mode&modeDir != 0 && mode&modeRegular == 0 {
		links = 2
	}
	_, c.err = fmt.Fprintf(c.w, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		c.inode, mode, 0, 0, links, 0, size, 0, 0, major, minor, len(name)+1, 0, name)
	c.pad(110 + len(name) + 1)
}

// pad fills up to the next multiple of four bytes, at which every header and
// every content begins.
func (c *cpioWriter) pad(written int) {
	if c.err == nil && written%4 != 0 {
		_, c.err = c.w.WriteString("\x00\x00\x00"[:4-written%4])
	}
}

func (c *cpioWriter) dir(name string, perm uint32) { c.entry(name, modeDir|perm, 0, 0, 0) }

func (c *cpioWriter) symlink(name, target string) {
	c.bytes(name, modeSymlink|0o777, []byte(target))
}

func (c *cpioWriter) device(name string, perm, major, minor uint32) {
	c.entry(name, modeChar|perm, 0, major, minor)
}

func (c *cpioWriter) bytes(name string, mode uint32, content []byte) {
	c.entry(name, mode, uint32(len(content)), 0, 0)
	if c.err == nil {
		_, c.err = c.w.Write(content)
		c.pad(len(content))
	}
}

// file copies a file of the host.
func (c *cpioWriter) file(name, path string) error {
	if c.err != nil {
		return c.err
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("pack %s: %w", name, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return fmt.Errorf("pack %s: %w", name, err)
	}
	if st.Size() >= 1<<32 {
		return fmt.Errorf("pack %s: %d bytes do not fit into the archive", name, st.Size())
	}
	c.entry(name, modeRegular|uint32(st.Mode().Perm()), uint32(st.Size()), 0, 0)
	if c.err == nil {
		_, c.err = io.CopyN(c.w, f, st.Size())
		c.pad(int(st.Size()))
	}
	if c.err != nil {
		return fmt.Errorf("pack %s: %w", name, c.err)
	}
	return nil
}

// close ends the archive.
func (c *cpioWriter) close() error {
	c.entry("TRAILER!!!", 0, 0, 0, 0)
	return errors.Join(c.err, c.w.Flush())
}
