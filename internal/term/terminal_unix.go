//go:build unix

package term

import "golang.org/x/sys/unix"

// Terminal reports whether fd is a terminal and how many columns it has; 0 when
// it does not say. Facts: ioctl_tty(2), TIOCGWINSZ fails with ENOTTY elsewhere.
func Terminal(fd uintptr) (width int, ok bool) {
	size, err := unix.IoctlGetWinsize(int(fd), unix.TIOCGWINSZ)
	if err != nil {
		return 0, false
	}
	return int(size.Col), true
}
