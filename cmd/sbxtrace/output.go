package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/sbxtrace/sbxtrace/internal/term"
)

// output is where a command's own output goes.
type output struct {
	io.Writer
	file  *os.File // to close; nil for a standard stream
	color bool
	width int // columns of the terminal, 0: no terminal
}

// openOutput opens the file at path, or takes std if path is empty or "-".
func openOutput(path string, std io.Writer, color string) (*output, error) {
	o := &output{Writer: std}
	if path != "" && path != "-" {
		f, err := createFile(path)
		if err != nil {
			return nil, err
		}
		o.Writer, o.file = f, f
	}
	if f, ok := o.Writer.(*os.File); ok {
		o.width, o.color = term.Terminal(f.Fd())
	}
	o.color = color == "always" || color == "auto" && o.color && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	return o, nil
}

// Write implements io.Writer.
func (o *output) Write(b []byte) (int, error) {
	n, err := o.Writer.Write(b)
	if err != nil {
		err = fmt.Errorf("write output: %w", err)
	}
	return n, err
}

// Close closes a file and tells what writing it late brought up.
func (o *output) Close() error {
	if o.file == nil {
		return nil
	}
	return o.file.Close()
}

// createFile creates a file that belongs to whoever called sudo, or empties one
// that there is, which stays its owner's.
func createFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		f, err = os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
		if err == nil {
			return f, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("create output: %w", err)
	}
	if err := giveToCaller(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// giveToCaller makes a regular file belong to the user behind sudo.
func giveToCaller(f *os.File) error {
	uid, gid, ok := sudoCaller()
	if !ok {
		return nil
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return err
	}
	if err := f.Chown(uid, gid); err != nil && !errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("give %s to its user: %w", f.Name(), err)
	}
	return nil
}

// sudoCaller is the user behind sudo, from the environment that sudo sets
// (sudo(8)); only root is asked to act for another.
func sudoCaller() (uid, gid int, ok bool) {
	if os.Geteuid() != 0 {
		return 0, 0, false
	}
	uid, err := strconv.Atoi(os.Getenv("SUDO_UID"))
	if err != nil {
		return 0, 0, false
	}
	gid, err = strconv.Atoi(os.Getenv("SUDO_GID"))
	return uid, gid, err == nil
}

// writeReady creates the ready file in one step: who waits for it never sees
// it half written.
func writeReady(path, line string) error {
	if path == "" {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".sbxtrace-ready-*")
	if err != nil {
		return fmt.Errorf("create ready file: %w", err)
	}
	_, err = f.WriteString(line + "\n")
	err = errors.Join(err, giveToCaller(f), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("create ready file: %w", err)
	}
	return nil
}

// list joins names for a sentence, in order: a, b or c.
func list(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
}
