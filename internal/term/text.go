package term

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxName bounds a function's name in bytes: mangled names of hostile or
// heavily templated binaries can be of any length.
const MaxName = 4096

// Clean returns s as valid UTF-8 without control characters, which names from
// hostile binaries could use to command the terminal.
func Clean(s string) string {
	if len(s) > MaxName {
		n := MaxName - len("…")
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n] + "…"
	}
	ok := true
	for _, r := range s {
		if r == utf8.RuneError || unicode.IsControl(r) || Bidi(r) {
			ok = false
			break
		}
	}
	if ok {
		return s
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || Bidi(r) {
			return utf8.RuneError
		}
		return r
	}, s)
}

// Bidi reports whether r changes the direction of text, which could make a
// name read as another.
func Bidi(r rune) bool {
	return r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == 0x2028 || r == 0x2029
}

// Elide shortens s to width columns by leaving out its middle; a width of 0 or
// less means any.
func Elide(s string, width int) string {
	n := utf8.RuneCountInString(s)
	if n <= width || width <= 0 {
		return s
	}
	if width == 1 {
		return "…"
	}
	r := []rune(s)
	head := width / 2
	return string(r[:head]) + "…" + string(r[n-(width-1-head):])
}

// Plural returns "1 call" or "1 234 calls".
func Plural(n uint64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return Count(n) + " " + what + "s"
}

// Share returns part of all, 0 to 1; 0 of nothing.
func Share(part, all uint64) float64 {
	if all == 0 {
		return 0
	}
	return float64(part) / float64(all)
}

// Bar draws the share v (0 to 1) of width cells in eighths of a cell.
func Bar(v float64, width int) string {
	eighths := int(v*float64(width)*8 + 0.5)
	eighths = min(max(eighths, 0), 8*width)
	s := strings.Repeat("█", eighths/8)
	if rest := eighths % 8; rest > 0 {
		s += string([]rune("▏▎▍▌▋▊▉")[rest-1])
	}
	return s
}

// AppendPadded appends s right-aligned in width columns.
func AppendPadded(dst []byte, s string, width int) []byte {
	for n := utf8.RuneCountInString(s); n < width; n++ {
		dst = append(dst, ' ')
	}
	return append(dst, s...)
}

// Uncolor returns s without the escape sequences of a Palette, to measure it.
func Uncolor(s string) string {
	for {
		from := strings.Index(s, "\x1b[")
		if from < 0 {
			return s
		}
		to := strings.IndexByte(s[from:], 'm')
		if to < 0 {
			return s
		}
		s = s[:from] + s[from+to+1:]
	}
}
