package uprobes

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestGlobMatch(t *testing.T) {
	tests := []struct {
		pattern string
		yes     []string
		no      []string
	}{
		// Plain text is anchored at both ends.
		{"malloc", []string{"malloc"}, []string{"mallocx", "xmalloc", "Malloc", ""}},

		// '*' crosses every separator.
		{"redis*", []string{"redis", "redisCommand"}, []string{"xredis", "Redis"}},
		{"*", []string{"", "a", "net/http.(*conn).serve"}, nil},
		{"***", []string{"", "a"}, nil},
		{"net*serve", []string{"net/http.(*conn).serve"}, []string{"net/http.(*conn).serves"}},
		{"ns*f", []string{"ns::a<b>::f", "ns(f"}, []string{"ns::g"}},
		{"a*b*c", []string{"abc", "aXbYc", "abbc", "abcbc"}, []string{"acb", "ab", "ac"}},
		{"*ab*ab", []string{"abab", "xabyab", "ababab"}, []string{"ab", "aba", "abx"}},
		{"a*a", []string{"aa", "aba"}, []string{"a"}},

		// '?' is one character, not one byte.
		{"f?", []string{"f1", "fé", "f*"}, []string{"f", "f12"}},
		{"?*?", []string{"ab", "abc", "éé"}, []string{"a", ""}},
		{"*?b", []string{"ab", "xéb"}, []string{"b"}},
		{"*a?c*", []string{"xabcx", "aéc", "aaéc"}, []string{"ac", "abbc"}},

		// Classes.
		{"f[abc]", []string{"fa", "fc", "f[abc]"}, []string{"f", "fd", "fab"}},
		{"f[a-c_0-9]", []string{"fb", "f_", "f7"}, []string{"fd", "f-"}},
		{"f[!a-c]", []string{"fd", "f!"}, []string{"fa", "f"}},
		{"f[^a]x", []string{"fbx"}, []string{"fax"}},
		{"f[a-]", []string{"fa", "f-"}, []string{"fb"}},
		{"f[-a]", []string{"fa", "f-"}, []string{"fb"}},
		{"*[0-9]", []string{"f1", "x[0-9]"}, []string{"f"}},
		{"*[0-9]*x", []string{"a1x", "12xx"}, []string{"ax"}},
		{"[é-ü]f", []string{"éf", "öf"}, []string{"ef"}},

		// Go: generics are literal unless they look like a class; even then
		// the brackets are tried literally.
		{"main.Map[...]", []string{"main.Map[...]"}, []string{"main.Map.", "main.Map"}},
		{"main.Map[go.shape.int]", []string{"main.Map[go.shape.int]"}, []string{"main.Mapg"}},
		{"main.Map[int]", []string{"main.Map[int]", "main.Mapn"}, []string{"main.Map"}},
		{"main.*[int]", []string{"main.Map[int]"}, []string{"main.Map[bool]"}},
		{"main.Map[*]", []string{"main.Map[int]", "main.Map[go.shape.string,int]"}, []string{"main.Map"}},
		{"main.Map[*", []string{"main.Map[int]", "main.Map[...].func1"}, []string{"main.Mapx"}},
		{"main.(*Stack[...]).Push", []string{"main.(*Stack[...]).Push"}, []string{"main.(*XStack[...]).Push"}},
		{"main.F[a,b]", []string{"main.F[a,b]"}, []string{"main.Fa"}},

		// Go: pointer receivers.
		{"net/http.(*conn).serve", []string{"net/http.(*conn).serve"}, []string{"net/http.(*xconn).serve", "net/http.(conn).serve"}},
		{"net/http.(*http2*).*", []string{"net/http.(*http2Framer).ReadFrame"}, []string{"net/http.(*Xhttp2F).x", "net/http.(http2F).x"}},
		{"*(*conn).serve", []string{"net/http.(*conn).serve"}, []string{"net/http.(*xconn).serve"}},
		{"main.(*T)*", []string{"main.(*T).M", "main.(*T).M.func1"}, []string{"main.(*XT).M"}},
		{"main.(*).M", []string{"main.(*T).M", "main.(T).M"}, []string{"main.T.M"}},
		{"main.(**).M", []string{"main.(*T).M"}, []string{"main.(T).M"}},
		{"main.(*conn", []string{"main.(*conn", "main.(xconn"}, []string{"main.conn"}},
		{"main.(*T?).M", []string{"main.(*T1).M"}, []string{"main.(*T).M"}},

		// C++: '*' in parameters is a wildcard, which a pointer fits too.
		{"foo(*)", []string{"foo()", "foo(char*)", "foo(int, int)"}, []string{"foo"}},
		{"foo(*int)", []string{"foo(int)", "foo(char, int)"}, []string{"foo(intx)"}},
		{"foo(char*)", []string{"foo(char*)", "foo(char const*)"}, []string{"foo(int)"}},
		{"a::operator[]", []string{"a::operator[]"}, []string{"a::operator"}},
		{"a::operator[](*)", []string{"a::operator[](int)"}, []string{"a::operator()(int)"}},
		{"*::operator()*", []string{"a::operator()(int) const"}, []string{"a::operator"}},
		{`a::operator\*`, []string{"a::operator*"}, []string{"a::operator+", `a::operator\`}},
		{"a::operator*", []string{"a::operator*", "a::operator+"}, nil},
		{"f[abi:cxx11]", []string{"f[abi:cxx11]"}, []string{"fa"}},
		{"f[]", []string{"f[]"}, []string{"f"}},
		{"f[!]", []string{"f[!]"}, []string{"f!"}},
		{"f]", []string{"f]"}, nil},

		// Escapes.
		{`f\?`, []string{"f?"}, []string{"fx"}},
		{`f\[ab]`, []string{"f[ab]"}, []string{"fa"}},
		{`f\\`, []string{`f\`}, []string{"f"}},
		{`\f`, []string{"f", `\f`}, nil},
	}
	for _, test := range tests {
		g, err := compileGlob(PatternFunc, test.pattern)
		if err != nil {
			t.Errorf("compile %q: %v", test.pattern, err)
			continue
		}
		for _, s := range test.yes {
			if !g.match(s) {
				t.Errorf("%q does not match %q", test.pattern, s)
			}
		}
		for _, s := range test.no {
			if g.match(s) {
				t.Errorf("%q matches %q", test.pattern, s)
			}
		}
	}
}

func TestHasParameters(t *testing.T) {
	for pattern, want := range map[string]bool{
		"f": false, "f(*": true, "f()": true, "ns::f(int)": true, "*(*int)": true,
		"net/http.(*conn).serve": false, "*(*conn).serve": false, "main.(*).M": false,
		"(anonymous namespace)::f": false, "(anonymous namespace)::f(int)": true,
	} {
		if got := hasParameters(pattern); got != want {
			t.Errorf("%q: got %v", pattern, got)
		}
	}
}

func TestGlobErrors(t *testing.T) {
	tests := []struct {
		pattern string
		pos     int
		reason  string
	}{
		{"", 0, "empty"},
		{"foo[z-a]", 4, `range "z-a" runs backwards`},
		{"é[bz-a]", 4, `range "z-a" runs backwards`},
		{`foo\`, 3, "backslash"},
		{"[[:alpha:]]x", 0, "named classes"},
		{"ab\xff", 2, "UTF-8"},
		{strings.Repeat("a", maxPattern+1), maxPattern, "longer than"},
	}
	for _, test := range tests {
		g, err := compileGlob(PatternFunc, test.pattern)
		var bad *PatternError
		if g != nil || !errors.As(err, &bad) || !errors.Is(err, ErrPattern) {
			t.Errorf("%.20q: got %v, %v, want a PatternError", test.pattern, g, err)
			continue
		}
		if bad.Pos != test.pos || !strings.Contains(bad.Reason, test.reason) {
			t.Errorf("%.20q: position %d, %q; want %d, %q", test.pattern, bad.Pos, bad.Reason, test.pos, test.reason)
		}
	}
}

func TestPatternErrorText(t *testing.T) {
	_, err := compileGlob(PatternExclude, "é[bz-a]")
	var bad *PatternError
	if !errors.As(err, &bad) {
		t.Fatal(err)
	}
	if got, want := bad.Error(), `bad exclude pattern "é[bz-a]", column 5: the range "z-a" runs backwards`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got, want := bad.Caret(), "é[bz-a]\n   ^"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// globRegexp is an independent statement of the glob language: it rewrites a
// pattern into a regular expression.
func globRegexp(pattern string, classes bool) *regexp.Regexp {
	receiver := regexp.MustCompile(`^\(\*([^()]+)\)`)
	class := regexp.MustCompile(`^\[([!^]?)([\pL\pM\pN\pS\pP\pZ\pC]+?)\]`)
	plain := regexp.MustCompile(`^[A-Za-z0-9_\x{80}-\x{10ffff}-]+$`)
	var out strings.Builder
	out.WriteString(`(?s)^`)
	for i := 0; i < len(pattern); {
		rest := pattern[i:]
		r, size := utf8.DecodeRuneInString(rest)
		if m := receiver.FindString(rest); m != "" {
			after := i + len(m)
			if i > 0 && pattern[i-1] == '.' || after < len(pattern) && pattern[after] == '.' {
				out.WriteString(`\(\*`)
				i += 2
				continue
			}
		}
		if m := class.FindStringSubmatch(rest); classes && r == '[' && m != nil && plain.MatchString(m[2]) {
			negate := ""
			if m[1] != "" {
				negate = "^"
			}
			out.WriteString("[" + negate + classMembers(m[2]) + "]")
			i += len(m[0])
			continue
		}
		switch r {
		case '\\':
			_, n := utf8.DecodeRuneInString(rest[1:])
			out.WriteString(regexp.QuoteMeta(rest[1 : 1+n]))
			size += n
		case '*':
			out.WriteString(`.*`)
		case '?':
			out.WriteString(`.`)
		default:
			out.WriteString(regexp.QuoteMeta(string(r)))
		}
		i += size
	}
	out.WriteString(`$`)
	return regexp.MustCompile(out.String())
}

// classMembers escapes the content of a class, leaving its ranges.
func classMembers(content string) string {
	runes := []rune(content)
	var out strings.Builder
	for i := 0; i < len(runes); i++ {
		out.WriteString(regexp.QuoteMeta(strings.ReplaceAll(string(runes[i]), "-", "\x00")))
		if i+2 < len(runes) && runes[i+1] == '-' {
			out.WriteString("-" + strings.ReplaceAll(regexp.QuoteMeta(string(runes[i+2])), "-", `\-`))
			i += 2
		}
	}
	return strings.ReplaceAll(out.String(), "\x00", `\-`)
}

func FuzzGlob(f *testing.F) {
	for _, seed := range [][2]string{
		{"net/http.(*conn).serve", "net/http.(*conn).serve"},
		{"main.Map[...]", "main.Map[...]"},
		{"a*b[c-e]?", "axxbcz"},
		{`\*[!a]**(*x).`, "*b(*x)."},
		{"*[-a][a-]", "x-a"},
		{"f[[:alpha:]]", "fa"},
		{"?é[é-ü]", "éö"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		g, err := compileGlob(PatternFunc, pattern)
		if (err == nil) != (g != nil) {
			t.Fatalf("compile %q: %v, %v", pattern, g, err)
		}
		if err != nil {
			var bad *PatternError
			if !errors.As(err, &bad) || bad.Pos < 0 || bad.Pos > len(pattern) || bad.Reason == "" {
				t.Fatalf("compile %q: %#v", pattern, err)
			}
			return
		}
		if !g.match(pattern) {
			t.Errorf("%q does not match itself", pattern)
		}
		got := g.match(name)
		if !utf8.ValidString(name) {
			return // a regexp has other ideas about broken characters
		}
		want := globRegexp(pattern, true).MatchString(name) || globRegexp(pattern, false).MatchString(name) || name == pattern
		if got != want {
			t.Errorf("%q matches %q: %v, want %v", pattern, name, got, want)
		}
	})
}
