package uprobes

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// ErrPattern is matched by every PatternError: the user typed a pattern that
// cannot be understood, which is wrong usage and not a failure.
var ErrPattern = errors.New("bad pattern")

// maxPattern bounds the length of one pattern in bytes. The longest C++ names
// seen in practice stay below it; it keeps matching cost bounded.
const maxPattern = 16 << 10

// PatternError says which pattern is wrong and where.
type PatternError struct {
	Kind    PatternKind // the kind of selector it was given as
	Pattern string      // as typed
	Pos     int         // byte position in Pattern, from 0
	Reason  string      // what is wrong there, lower case
}

// Error names the pattern, the column (from 1) and the reason on one line.
func (e *PatternError) Error() string {
	return fmt.Sprintf("bad %s pattern %q, column %d: %s", e.Kind, e.Pattern, e.Pos+1, e.Reason)
}

// Is makes errors.Is(err, ErrPattern) hold.
func (e *PatternError) Is(target error) bool { return target == ErrPattern }

// Caret returns the pattern and, on a second line, a caret below the column at
// fault, for a terminal.
func (e *PatternError) Caret() string {
	before := e.Pattern[:min(e.Pos, len(e.Pattern))]
	return e.Pattern + "\n" + strings.Repeat(" ", utf8.RuneCountInString(before)) + "^"
}

// glob is a compiled pattern over function names. Its language is chosen so
// that the names of Go, C++ and Rust can be typed as they are printed:
//
//   - any run of characters, empty too, '/', '.', '::' and '(' included
//     ?      exactly one character
//     [abc]  one of the listed characters, [a-z] a range, [!abc] or [^abc] none of them
//     \x     the character x itself
//
// and these are literal, because the languages spell names that way:
//
//   - the brackets of "[]" (operator[]), and of any "[…]" whose content is not
//     a plain list of letters, digits, '_' and '-': main.Map[...],
//     main.Map[go.shape.int], f[abi:cxx11], main.Map[*];
//   - a '[' that nothing closes: main.Map[*;
//   - the '*' of "(*T)" where T is not empty and has no parentheses, when the
//     group stands between dots, ".(*T)" or "(*T).": Go's pointer receivers, as
//     in net/http.(*conn).serve. Wildcards inside T work: (*http2*). In "(*)"
//     the '*' is a wildcard and stands for any receiver or any parameters.
//
// A pattern with classes is also tried with all its brackets literal, so that
// main.Map[int] finds that very instance. A wildcard matches itself, so a name
// pasted without backslashes always matches at least itself.
//
// Matching is case-sensitive and anchored at both ends.
type glob struct {
	src      string
	readings []globReading // one, or two when brackets can be read both ways
}

// globReading is one way to understand a pattern: the pieces between its stars.
// A pattern without '*' has one piece; "*x" has the pieces "" and "x".
type globReading []globPiece

// globPiece is what stands between two stars. Most are plain text, which
// strings.Index finds fast; others are a sequence of one-character matchers.
type globPiece struct {
	text  string
	chars []charMatcher // nil when text says it all
}

// charMatcher matches exactly one character.
type charMatcher struct {
	any    bool // '?'
	negate bool
	ranges []runeRange // a single one with lo == hi for a literal character
}

type runeRange struct{ lo, hi rune }

func (m *charMatcher) match(r rune) bool {
	if m.any {
		return true
	}
	for _, rg := range m.ranges {
		if rg.lo <= r && r <= rg.hi {
			return !m.negate
		}
	}
	return m.negate
}

// compileGlob parses one pattern. kind only labels the error.
func compileGlob(kind PatternKind, src string) (*glob, error) {
	fail := func(pos int, format string, args ...any) error {
		return &PatternError{Kind: kind, Pattern: src, Pos: pos, Reason: fmt.Sprintf(format, args...)}
	}
	if src == "" {
		return nil, fail(0, "the pattern is empty")
	}
	if len(src) > maxPattern {
		return nil, fail(maxPattern, "longer than %d bytes", maxPattern)
	}
	if i := invalidUTF8(src); i >= 0 {
		return nil, fail(i, "not valid UTF-8")
	}
	asClasses, classes, err := parseGlob(src, true, fail)
	if err != nil {
		return nil, err
	}
	g := &glob{src: src, readings: []globReading{asClasses}}
	if classes > 0 {
		literal, _, err := parseGlob(src, false, fail)
		if err != nil {
			return nil, err
		}
		g.readings = append(g.readings, literal)
	}
	return g, nil
}

func invalidUTF8(s string) int {
	for i, r := range s {
		if r == utf8.RuneError {
			if _, size := utf8.DecodeRuneInString(s[i:]); size == 1 {
				return i
			}
		}
	}
	return -1
}

// parseGlob parses src into pieces and counts the bracket expressions it took
// (or, with classes false, would have taken) as classes.
func parseGlob(src string, classes bool, fail func(int, string, ...any) error) (globReading, int, error) {
	var (
		out   globReading
		cur   []charMatcher
		found int
	)
	literal := func(r rune) { cur = append(cur, charMatcher{ranges: []runeRange{{r, r}}}) }
	for i := 0; i < len(src); {
		r, size := utf8.DecodeRuneInString(src[i:])
		switch {
		case r == '\\':
			if i+1 == len(src) {
				return nil, 0, fail(i, `nothing follows the backslash; write \\ for a backslash`)
			}
			next, nsize := utf8.DecodeRuneInString(src[i+1:])
			literal(next)
			size += nsize
		case r == '*' && isReceiverStar(src, i):
			literal(r)
		case r == '*':
			// Adjacent stars mean no more than one does.
			if len(cur) > 0 || len(out) == 0 {
				out = append(out, makePiece(cur))
				cur = nil
			}
		case r == '?':
			cur = append(cur, charMatcher{any: true})
		case r == '[':
			end := classEnd(src, i)
			if strings.HasPrefix(src[i:], "[[:") && strings.Contains(src[i:], ":]]") {
				return nil, 0, fail(i, "named classes such as [[:alpha:]] are not supported; write a range")
			}
			if end < 0 {
				literal(r)
				break
			}
			found++
			if !classes {
				literal(r)
				break
			}
			m, pos, reason := parseClass(src, i, end)
			if reason != "" {
				return nil, 0, fail(pos, "%s", reason)
			}
			cur = append(cur, m)
			size = end + 1 - i
		default:
			literal(r)
		}
		i += size
	}
	return append(out, makePiece(cur)), found, nil
}

// isReceiverStar reports whether the '*' at i is that of a Go pointer receiver.
func isReceiverStar(src string, i int) bool {
	if i == 0 || src[i-1] != '(' {
		return false
	}
	n := strings.IndexAny(src[i+1:], "()")
	if n <= 0 || src[i+1+n] != ')' {
		return false
	}
	after := i + 1 + n + 1
	return i >= 2 && src[i-2] == '.' || after < len(src) && src[after] == '.'
}

// hasParameters reports whether a glob speaks of a function's parameters: it
// has a '(' that is not part of a Go receiver or of C++'s unnamed namespace.
func hasParameters(src string) bool {
	for i := range len(src) {
		if src[i] != '(' || i > 0 && src[i-1] == '.' || strings.HasPrefix(src[i:], "(anonymous namespace)") ||
			i+1 < len(src) && src[i+1] == '*' && isReceiverStar(src, i+1) {
			continue
		}
		return true
	}
	return false
}

// classEnd returns the position of the ']' that closes the class opened at i,
// or -1 when the bracket is literal.
func classEnd(src string, i int) int {
	j := i + 1
	if j < len(src) && (src[j] == '!' || src[j] == '^') {
		j++
	}
	start := j
	for ; j < len(src); j++ {
		switch c := src[j]; {
		case c == ']':
			if j == start {
				return -1
			}
			return j
		case c == '_' || c == '-' || c >= utf8.RuneSelf || isAlnum(c):
		default:
			return -1
		}
	}
	return -1
}

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// parseClass parses the class src[i:end+1]; a reason, when not empty, says what
// is wrong at pos.
func parseClass(src string, i, end int) (m charMatcher, pos int, reason string) {
	j := i + 1
	if src[j] == '!' || src[j] == '^' {
		m.negate = true
		j++
	}
	for j < end {
		lo, size := utf8.DecodeRuneInString(src[j:])
		start := j
		j += size
		hi := lo
		// A '-' before the end of the class is a range, elsewhere itself.
		if j+1 < end && src[j] == '-' {
			hi, size = utf8.DecodeRuneInString(src[j+1:])
			j += 1 + size
			if hi < lo {
				return m, start, fmt.Sprintf("the range %q runs backwards", src[start:j])
			}
		}
		m.ranges = append(m.ranges, runeRange{lo, hi})
	}
	return m, 0, ""
}

// makePiece folds matchers of single characters into plain text where it can.
func makePiece(chars []charMatcher) globPiece {
	var text strings.Builder
	for _, m := range chars {
		if m.any || m.negate || len(m.ranges) != 1 || m.ranges[0].lo != m.ranges[0].hi {
			return globPiece{chars: chars}
		}
		text.WriteRune(m.ranges[0].lo)
	}
	return globPiece{text: text.String()}
}

// match reports whether the whole of s fits the pattern.
func (g *glob) match(s string) bool {
	for i := range g.readings {
		if g.readings[i].match(s) {
			return true
		}
	}
	return s == g.src
}

// match tries the pieces from left to right, each as early as possible. That is
// enough: a piece matches a fixed number of characters, so an earlier start
// leaves more room for the rest.
func (rd globReading) match(s string) bool {
	first, last := &rd[0], &rd[len(rd)-1]
	n, ok := first.matchPrefix(s)
	if !ok {
		return false
	}
	if len(rd) == 1 {
		return n == len(s)
	}
	s = s[n:]
	if last.chars == nil && !strings.HasSuffix(s, last.text) {
		return false // most names end here, before any search
	}
	for i := 1; i < len(rd)-1; i++ {
		end := rd[i].find(s)
		if end < 0 {
			return false
		}
		s = s[end:]
	}
	return last.matchSuffix(s)
}

// matchPrefix returns how many bytes of s the piece takes at its start.
func (p *globPiece) matchPrefix(s string) (int, bool) {
	if p.chars == nil {
		return len(p.text), strings.HasPrefix(s, p.text)
	}
	n := 0
	for i := range p.chars {
		if n == len(s) {
			return 0, false
		}
		r, size := rune(s[n]), 1
		if r >= utf8.RuneSelf {
			r, size = utf8.DecodeRuneInString(s[n:])
		}
		if !p.chars[i].match(r) {
			return 0, false
		}
		n += size
	}
	return n, true
}

// find returns the end of the piece's first occurrence in s, or -1.
func (p *globPiece) find(s string) int {
	if p.chars == nil {
		i := strings.Index(s, p.text)
		if i < 0 {
			return -1
		}
		return i + len(p.text)
	}
	for i := 0; i <= len(s); i += runeLen(s[i:]) {
		if n, ok := p.matchPrefix(s[i:]); ok {
			return i + n
		}
	}
	return -1
}

// matchSuffix reports whether the piece takes exactly the end of s.
func (p *globPiece) matchSuffix(s string) bool {
	if p.chars == nil {
		return strings.HasSuffix(s, p.text)
	}
	i := len(s)
	for range p.chars {
		if i == 0 {
			return false
		}
		_, size := utf8.DecodeLastRuneInString(s[:i])
		i -= size
	}
	_, ok := p.matchPrefix(s[i:])
	return ok
}

// runeLen is the length of the first character of s, and 1 at the end of s so
// that loops over s end.
func runeLen(s string) int {
	if s == "" || s[0] < utf8.RuneSelf {
		return 1
	}
	_, size := utf8.DecodeRuneInString(s)
	return size
}
