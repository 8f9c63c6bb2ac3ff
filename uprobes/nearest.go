package uprobes

import (
	"bytes"
	"errors"
	"math/bits"
	"slices"
	"strings"
)

// ErrNoMatch is matched by every NoMatchError.
var ErrNoMatch = errors.New("no match")

// NoMatchError says that a pattern fits nothing, with the names it may have
// been meant for.
type NoMatchError struct {
	Kind    PatternKind // what was looked for; empty means a function
	Pattern string      // as typed
	Nearest []string    // existing names, likeliest first; may be empty
}

// Error names the pattern and up to three of the nearest names.
func (e *NoMatchError) Error() string {
	var b strings.Builder
	switch e.Kind {
	case "", PatternFunc, PatternRegex:
		b.WriteString("no function")
	default:
		b.WriteString("no ")
		b.WriteString(string(e.Kind))
	}
	b.WriteString(" matches ")
	b.WriteString(quotePattern(e.Pattern))
	for i, name := range e.Nearest[:min(len(e.Nearest), 3)] {
		switch {
		case i == 0:
			b.WriteString("; nearest: ")
		default:
			b.WriteString(", ")
		}
		b.WriteString(name)
	}
	if len(e.Nearest) == 0 {
		b.WriteString(" and nothing is spelled like it; `sbxtrace functions` lists what can be probed")
	}
	return b.String()
}

// Is makes errors.Is(err, ErrNoMatch) hold.
func (e *NoMatchError) Is(target error) bool { return target == ErrNoMatch }

// quotePattern quotes like a shell user would, so that the pattern can be
// compared with what was typed without undoing Go's escapes.
func quotePattern(s string) string { return "'" + s + "'" }

// Limits of the work Nearest does per name.
const (
	nearestLast = 64   // bytes of the last component that edit distance compares
	nearestFull = 1024 // bytes of a name that are searched for the pattern
)

// Nearest returns up to limit of the names that pattern was likely meant for,
// the likeliest first. Case does not count, nor do the pattern's wildcards and
// "module:" prefix. A name is near if
//
//   - it equals the pattern: best,
//   - its last component (after '.', '/' or '::', without parameters and
//     template arguments) equals the pattern's: second best,
//   - its last component is a few typing mistakes (insertions, deletions,
//     substitutions, swapped neighbours) away from the pattern's, one in four
//     characters and at least one; of a pattern that ends in '*' the last
//     component's beginning is compared,
//   - it contains the pattern, or its last component contains the pattern's;
//     the less it is longer, the nearer.
//
// Time is linear in the number of names: 100,000 take about a tenth of a second.
func Nearest(pattern string, names []string, limit int) []string {
	if limit <= 0 {
		return nil
	}
	want := newNearestQuery(pattern)
	if want.full == "" {
		return nil
	}
	type candidate struct {
		score int
		name  string
	}
	less := func(a, b candidate) int {
		if a.score != b.score {
			return a.score - b.score
		}
		return strings.Compare(a.name, b.name)
	}
	var best []candidate // sorted, at most limit, without duplicates
	for _, name := range names {
		score, ok := want.score(name)
		if !ok {
			continue
		}
		c := candidate{score, name}
		at, found := slices.BinarySearchFunc(best, c, less)
		if found || at == limit {
			continue
		}
		if len(best) == limit {
			best = best[:limit-1]
		}
		best = slices.Insert(best, at, c)
	}
	out := make([]string, len(best))
	for i, c := range best {
		out[i] = c.name
	}
	return out
}

// nearestQuery is a pattern prepared for comparing with many names. All text is
// in lower case.
type nearestQuery struct {
	full      string // without wildcards and module
	fullBytes []byte
	last      string // its last component
	lastBytes []byte
	lastBag   uint64 // set of characters in last
	edits     int    // how many typing mistakes are forgiven
	prefix    bool   // the pattern ended in '*'
}

func newNearestQuery(pattern string) *nearestQuery {
	if colon := moduleColon(pattern); colon >= 0 {
		pattern = pattern[colon+1:]
	}
	prefix := strings.HasSuffix(pattern, "*")
	pattern = strings.Map(func(r rune) rune {
		if r == '*' || r == '?' || r == '\\' {
			return -1
		}
		return r
	}, pattern)
	pattern = pattern[:min(len(pattern), nearestFull)]
	last := lastComponent(pattern)
	last = last[:min(len(last), nearestLast)]
	q := &nearestQuery{fullBytes: toLowerASCII(nil, pattern), lastBytes: toLowerASCII(nil, last), prefix: prefix}
	q.full, q.last = string(q.fullBytes), string(q.lastBytes)
	q.lastBag = charBag(q.lastBytes)
	q.edits = max(1, len(q.last)/4)
	return q
}

// score rates a name: lower is nearer.
func (q *nearestQuery) score(name string) (int, bool) {
	name = name[:min(len(name), nearestFull)]
	var fullBuf [nearestFull]byte
	full := toLowerASCII(fullBuf[:0], name)
	if string(full) == q.full {
		return 0, true
	}
	if strings.IndexByte(name, ' ') >= 0 {
		name = dropSignature(name) // return types have no say
	}
	var lastBuf [nearestFull]byte
	last := toLowerASCII(lastBuf[:0], lastComponent(name))
	if len(q.last) > 0 && string(last) == q.last {
		return 1000 + len(full), true
	}
	// A pattern of one or two characters is contained in too much to mean it.
	if len(q.full) >= 3 && bytes.Contains(full, q.fullBytes) {
		return 3000 + len(full) - len(q.full), true
	}
	if len(q.last) >= 3 && bytes.Contains(last, q.lastBytes) {
		return 5000 + len(last) - len(q.last), true
	}
	if q.prefix && len(last) > len(q.last) {
		last = last[:len(q.last)]
	}
	if len(last) == 0 || len(q.last) < 2 || abs(len(last)-len(q.last)) > q.edits {
		return 0, false
	}
	// Each mistake adds at most one character that the other side lacks and
	// removes at most one, so most names are out without computing a distance.
	bag := charBag(last)
	if bits.OnesCount64(bag&^q.lastBag) > q.edits || bits.OnesCount64(q.lastBag&^bag) > q.edits {
		return 0, false
	}
	d := editDistance(q.last, last[:min(len(last), nearestLast)], q.edits)
	if d > q.edits {
		return 0, false
	}
	return 2000*d + min(abs(len(full)-len(q.full)), 1999), true
}

func abs(n int) int { return max(n, -n) }

func toLowerASCII(dst []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst
}

// charBag is the set of characters in s, folded into 64 bits. Distinct
// characters may share a bit, which only makes the filter weaker.
func charBag(s []byte) uint64 {
	var bag uint64
	for _, c := range s {
		bag |= 1 << (c & 63)
	}
	return bag
}

// lastComponent returns what follows the last '.', '/' or ':' of a name,
// leaving out parameters, template and type arguments.
func lastComponent(name string) string {
	start, end, depth := 0, 0, 0
	for i := 0; i < len(name); i++ {
		switch name[i] {
		case '(', '<', '[', '{':
			depth++
		case ')', '>', ']', '}':
			if depth > 0 {
				depth--
			}
		case '.', '/', ':', ' ':
			if depth == 0 && i+1 < len(name) {
				start, end = i+1, i+1
			}
		default:
			// Stop at the first bracket: what follows it is no name.
			if depth == 0 && end == i {
				end = i + 1
			}
		}
	}
	return name[start:end]
}

// editDistance is the optimal string alignment distance of a and b, or
// something above limit as soon as it must be above it. Both are at most
// nearestLast bytes long.
func editDistance(a string, b []byte, limit int) int {
	var rows [3][nearestLast + 1]int
	before, prev, cur := &rows[0], &rows[1], &rows[2]
	for j := range b {
		prev[j+1] = j + 1
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		lowest := i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d := min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, before[j-2]+1)
			}
			cur[j] = d
			lowest = min(lowest, d)
		}
		if lowest > limit {
			return lowest
		}
		before, prev, cur = prev, cur, before
	}
	return prev[len(b)]
}
