//go:build unix

package term

import (
	"os"
	"testing"
)

func TestTerminal(t *testing.T) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if width, ok := Terminal(f.Fd()); ok || width != 0 {
		t.Errorf("%s is a terminal of %d columns", os.DevNull, width)
	}
	pty, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no pseudo terminals: ", err)
	}
	defer pty.Close()
	if _, ok := Terminal(pty.Fd()); !ok {
		t.Error("a pseudo terminal is no terminal")
	}
}
