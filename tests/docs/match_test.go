package docs

import (
	"regexp"
	"strings"
)

const ellipsis = "…"

// replacements make of a line what is the same in every run.
var replacements = []struct {
	from *regexp.Regexp
	to   string
}{
	{regexp.MustCompile(`\x1b\[[0-9;]*m`), ""},
	// Bars are as long as the numbers beside them are large.
	{regexp.MustCompile(`[▁▂▃▄▅▆▇█▉▊▋▌▍▎▏░▒▓]+`), ""},
	{regexp.MustCompile(`0x[0-9a-f]+`), "HEX"},
	// Durations and sizes change their units.
	{regexp.MustCompile(`\b[0-9]+(\.[0-9]+)? ?(ns|µs|ms|s|m|h)\b`), "TIME"},
	{regexp.MustCompile(`\b[0-9]+(\.[0-9]+)? ?([KMG]i?)?B\b`), "SIZE"},
	// 1 744 is a number, and so is 2.8.
	{regexp.MustCompile(`[0-9]+([\x{00a0}\x{2009}\x{202f}][0-9]{3})+\b`), "0"},
	{regexp.MustCompile(`\b[0-9]{1,3}( [0-9]{3})+\b`), "0"},
	{regexp.MustCompile(`[0-9]+(\.[0-9]+)?( [kMG]/s)?`), "N"},
	// "1 function", "2 functions".
	{regexp.MustCompile(`\bN ([a-z]{3,}[a-rt-z])e?s\b`), "N $1"},
	// Directories of this machine, or cut from a path.
	{regexp.MustCompile(`…/`), ""},
	{regexp.MustCompile(`/(?:[A-Za-z0-9._+-]+/)+([A-Za-z0-9._+-]+)`), "$1"},
	{regexp.MustCompile(`\s+`), " "},
}

// normalize replaces numbers, times, sizes, addresses and directories, and
// removes colours, bars and widths of columns.
func normalize(line string) string {
	for _, r := range replacements {
		line = r.from.ReplaceAllString(line, r.to)
	}
	return strings.TrimSpace(line)
}

// missing returns the lines shown that were not printed. Ordered says that they
// have to come in the order shown.
func missing(shown, printed []string, ordered bool) []string {
	lines := make([]string, len(printed))
	for i, line := range printed {
		lines[i] = normalize(line)
	}
	var lacking []string
	next := 0
	for _, line := range shown {
		if strings.TrimSpace(line) == ellipsis {
			continue
		}
		want := strings.Split(normalize(line), ellipsis)
		at := next
		for at < len(lines) && !matches(want, lines[at]) {
			at++
		}
		switch {
		case at == len(lines):
			lacking = append(lacking, line)
		case ordered:
			next = at + 1
		}
	}
	return lacking
}

// matches reports whether a line consists of the parts with anything between them.
func matches(parts []string, line string) bool {
	if len(parts) == 1 {
		return line == parts[0]
	}
	rest, ok := strings.CutPrefix(line, strings.TrimSpace(parts[0]))
	if !ok {
		return false
	}
	last := len(parts) - 1
	for _, part := range parts[1:last] {
		if _, rest, ok = strings.Cut(rest, strings.TrimSpace(part)); !ok {
			return false
		}
	}
	return strings.HasSuffix(rest, strings.TrimSpace(parts[last]))
}
