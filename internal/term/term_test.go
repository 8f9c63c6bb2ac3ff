package term

import (
	"math"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestDuration(t *testing.T) {
	for _, tc := range []struct {
		ns   uint64
		want string
	}{
		{0, "0 ns"}, {1, "1 ns"}, {999, "999 ns"}, {1000, "1.00 µs"}, {1234, "1.23 µs"}, {1235, "1.24 µs"},
		{9994, "9.99 µs"}, {9995, "10.0 µs"}, {99_949, "99.9 µs"}, {99_950, "100 µs"}, {999_499, "999 µs"},
		{999_500, "1.00 ms"}, {12_345_678, "12.3 ms"}, {999_499_999, "999 ms"}, {999_500_000, "1.00 s"},
		{1_500_000_000, "1.50 s"}, {999 * sec, "999 s"}, {999*sec + 500*ms, "16.7 m"}, {1000 * sec, "16.7 m"},
		{90 * mins, "90.0 m"}, {100 * mins, "1.67 h"}, {99 * hour, "99.0 h"}, {100 * hour, "4.17 d"},
		{400 * day, "400 d"}, {math.MaxUint64, "213504 d"},
	} {
		if got := Duration(tc.ns); got != tc.want {
			t.Errorf("%d ns is %q, want %q", tc.ns, got, tc.want)
		}
		column := string(AppendDuration(nil, tc.ns))
		if n := utf8.RuneCountInString(column); n != DurationWidth {
			t.Errorf("%d ns: %q has %d columns, want %d", tc.ns, column, n, DurationWidth)
		}
		if got, want := strings.Join(strings.Fields(column), " "), tc.want; got != want {
			t.Errorf("%d ns: column %q, want %q", tc.ns, column, want)
		}
	}
}

func TestCount(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0", 999: "999", 1000: "1_000", 123456: "123_456", 1234567: "1_234_567",
		math.MaxUint64: "18_446_744_073_709_551_615",
	} {
		if got := strings.ReplaceAll(Count(n), thinSpace, "_"); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}

func TestRate(t *testing.T) {
	for _, tc := range []struct {
		n, ns uint64
		want  string
	}{
		{5, 0, ""}, {0, sec, "0 /s"}, {1, 2 * sec, "0.50 /s"}, {12, sec, "12.0 /s"}, {999, sec, "999 /s"},
		{9996, 10 * sec, "1.00 k/s"}, {1_200_000, sec, "1.20 M/s"}, {99_960, sec, "100 k/s"},
	} {
		if got := Rate(tc.n, tc.ns); got != tc.want {
			t.Errorf("%d in %d ns is %q, want %q", tc.n, tc.ns, got, tc.want)
		}
	}
}

func TestBar(t *testing.T) {
	for _, tc := range []struct {
		v    float64
		want string
	}{
		{0, ""}, {1, "████"}, {2, "████"}, {-1, ""}, {0.5, "██"}, {0.03125, "▏"}, {0.28125, "█▏"}, {0.46875, "█▉"}, {0.0001, ""},
	} {
		if got := Bar(tc.v, 4); got != tc.want {
			t.Errorf("bar of %v is %q, want %q", tc.v, got, tc.want)
		}
	}
}

func TestElide(t *testing.T) {
	for _, tc := range []struct {
		s     string
		width int
		want  string
	}{
		{"short", 5, "short"}, {"longer", 5, "lo…er"}, {"longer", 4, "lo…r"}, {"longer", 1, "…"}, {"longer", 0, "longer"},
		{"日本語の名前", 3, "日…前"}, {"", 3, ""}, {"ab", 2, "ab"}, {"abc", 2, "a…"},
	} {
		if got := Elide(tc.s, tc.width); got != tc.want {
			t.Errorf("%q in %d columns is %q, want %q", tc.s, tc.width, got, tc.want)
		}
	}
}

func TestClean(t *testing.T) {
	for _, tc := range []struct{ s, want string }{
		{"std::map<int>", "std::map<int>"},
		{"日本", "日本"},
		{"a\x1b[2Jb\nc\x7f\u009b", "a�[2Jb�c��"},
		{"a\xffb", "a�b"},
		{"x\u202ey\u2066z\u2028", "x�y�z�"},
	} {
		if got := Clean(tc.s); got != tc.want {
			t.Errorf("%q becomes %q, want %q", tc.s, got, tc.want)
		}
	}
	if got := Clean(strings.Repeat("é", MaxName)); len(got) > MaxName || !utf8.ValidString(got) {
		t.Errorf("a long name becomes %d bytes, valid %v", len(got), utf8.ValidString(got))
	}
}
