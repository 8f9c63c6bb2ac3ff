// Package term is what all output for people shares: units, colours, names made
// harmless and short enough, bars. It is pure but for asking a terminal its size.
package term

import (
	"strconv"
	"strings"
)

// Separator of groups of three digits: a narrow space that does not break.
const thinSpace = "\u202f"

const (
	µs   = 1000
	ms   = 1000 * µs
	sec  = 1000 * ms
	mins = 60 * sec
	hour = 60 * mins
	day  = 24 * hour
)

// DurationWidth is the number of columns of AppendDuration.
const DurationWidth = 9

// Duration returns ns with three significant digits and a unit: "0 ns",
// "1.23 µs", "12.3 ms", "1.50 s", "16.7 m", "3.20 h".
func Duration(ns uint64) string {
	s := string(AppendDuration(nil, ns))
	number, unit := s[:6], s[7:]
	return strings.TrimLeft(number, " ") + " " + strings.TrimLeft(unit, " ")
}

// AppendDuration appends ns as Duration does, in nine columns: the number
// right-aligned in six, then the unit in two, so that units stand below each
// other.
func AppendDuration(dst []byte, ns uint64) []byte {
	switch {
	case ns < µs:
		return append(appendRight(dst, ns, 0), " ns"...)
	case ns < ms-µs/2:
		return append(appendScaled(dst, ns, µs), " µs"...)
	case ns < sec-ms/2:
		return append(appendScaled(dst, ns/100, ms/100), " ms"...)
	case ns < 1000*sec-sec/2:
		return append(appendScaled(dst, ns/10_000, sec/10_000), "  s"...)
	case ns < 100*mins:
		return append(appendScaled(dst, ns/10_000, mins/10_000), "  m"...)
	case ns < 100*hour:
		return append(appendScaled(dst, ns/10_000, hour/10_000), "  h"...)
	}
	return append(appendScaled(dst, ns/10_000, day/10_000), "  d"...)
}

// appendScaled appends v/unit rounded to three significant digits.
func appendScaled(dst []byte, v, unit uint64) []byte {
	if n := (v*100 + unit/2) / unit; n < 1000 {
		return appendRight(dst, n, 2)
	}
	if n := (v*10 + unit/2) / unit; n < 1000 {
		return appendRight(dst, n, 1)
	}
	return appendRight(dst, (v+unit/2)/unit, 0)
}

// appendRight appends n/10^decimals right-aligned in six columns.
func appendRight(dst []byte, n uint64, decimals int) []byte {
	var b [20]byte
	i := len(b)
	for digits := 0; n > 0 || digits <= decimals; digits++ {
		if digits == decimals && decimals > 0 {
			i--
			b[i] = '.'
		}
		i--
		b[i] = byte('0' + n%10)
		n /= 10
	}
	const spaces = "      "
	if w := len(b) - i; w < len(spaces) {
		dst = append(dst, spaces[w:]...)
	}
	return append(dst, b[i:]...)
}

// Count returns n with its digits in groups of three: "1 234 567", separated
// by narrow no-break spaces.
func Count(n uint64) string { return string(AppendCount(nil, n)) }

// AppendCount appends n as Count gives it.
func AppendCount(dst []byte, n uint64) []byte {
	var b [20]byte
	digits := strconv.AppendUint(b[:0], n, 10)
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			dst = append(dst, thinSpace...)
		}
		dst = append(dst, d)
	}
	return dst
}

// Rate returns n events in ns nanoseconds as a rate with three significant
// digits: "0 /s", "12.3 /s", "1.20 M/s". It returns "" when ns is 0.
func Rate(n, ns uint64) string {
	if ns == 0 {
		return ""
	}
	r := float64(n) * sec / float64(ns)
	unit := ""
	for _, u := range []string{"k", "M", "G", "T", "P", "E"} {
		if r < 999.5 {
			break
		}
		r, unit = r/1000, u
	}
	decimals := 2
	switch {
	case r >= 99.95 || r == 0:
		decimals = 0
	case r >= 9.995:
		decimals = 1
	}
	return strconv.FormatFloat(r, 'f', decimals, 64) + " " + unit + "/s"
}

// Bytes returns n bytes with three significant digits and a binary unit: "0 B",
// "1.50 KiB", "64.0 MiB".
func Bytes(n int64) string {
	v, unit := float64(n), "B"
	for _, u := range []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"} {
		if v > -1023.5 && v < 1023.5 {
			break
		}
		v, unit = v/1024, u
	}
	decimals := 2
	switch size := max(v, -v); {
	case unit == "B" || size >= 99.95:
		decimals = 0
	case size >= 9.995:
		decimals = 1
	}
	return strconv.FormatFloat(v, 'f', decimals, 64) + " " + unit
}
