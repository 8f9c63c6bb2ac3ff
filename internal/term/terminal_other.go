//go:build !unix

package term

// Terminal reports whether fd is a terminal and how many columns it has. Here
// it cannot be asked: everything is taken for a file.
func Terminal(uintptr) (width int, ok bool) { return 0, false }
