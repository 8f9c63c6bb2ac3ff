package uprobes

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestNearest(t *testing.T) {
	names := []string{
		"processCommand", "processCommandAndResetClient", "redisCommand", "call", "calloc", "malloc", "free",
		"net/http.(*conn).serve", "net/http.(*Server).Serve", "main.handle", "main.(*Stack[...]).Push",
		"ns::Map<int>::find(int) const", "void ns::insert<char>(char)", "std::operator<<(int)", "processCommand",
	}
	tests := []struct {
		pattern string
		want    []string // the beginning of the answer
	}{
		{"procesCommand", []string{"processCommand"}},
		{"processComamnd", []string{"processCommand"}},
		{"PROCESSCOMMAND", []string{"processCommand", "processCommandAndResetClient"}},
		{"processCommand*x", []string{"processCommand"}},
		{"redis*Comand", []string{"redisCommand"}},
		{"libc.so*:maloc", []string{"malloc"}},
		{"mallc", []string{"malloc"}},
		{"conn.serve", []string{"net/http.(*conn).serve", "net/http.(*Server).Serve"}},
		{"http.serve", []string{"net/http.(*conn).serve"}},
		{"main.hanlde", []string{"main.handle"}},
		{"main.Stack.Push", []string{"main.(*Stack[...]).Push"}},
		{"ns::Map::fnid", []string{"ns::Map<int>::find(int) const"}},
		{"ns::inzert", []string{"void ns::insert<char>(char)"}},
		{"Command", []string{"redisCommand", "processCommand"}},
		{"fre", []string{"free"}},
		{"proecss*", []string{"processCommand", "processCommandAndResetClient"}},
	}
	for _, test := range tests {
		got := Nearest(test.pattern, names, 3)
		if len(got) > 3 || len(got) < len(test.want) || !slices.Equal(got[:len(test.want)], test.want) {
			t.Errorf("%q: got %q, want it to begin with %q", test.pattern, got, test.want)
		}
	}
	for _, pattern := range []string{"", "*", "?*", "completelyDifferent", "zz", "lib:"} {
		if got := Nearest(pattern, names, 3); len(got) != 0 {
			t.Errorf("%q: got %q, want nothing", pattern, got)
		}
	}
	if got := Nearest("malloc", names, 0); got != nil {
		t.Errorf("limit 0: got %q", got)
	}
	if got := Nearest("processCommand", names, 10); got[0] != "processCommand" || slices.Contains(got[1:], "processCommand") {
		t.Errorf("a name is listed twice: %q", got)
	}
}

func TestEditDistance(t *testing.T) {
	tests := []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"a", "", 1}, {"", "ab", 2}, {"abc", "abc", 0}, {"abc", "abd", 1}, {"abc", "acb", 1},
		{"abc", "ab", 1}, {"abc", "xabc", 1}, {"kitten", "sitting", 3}, {"abcd", "badc", 2}, {"ca", "abc", 3},
	}
	for _, test := range tests {
		if got := editDistance(test.a, []byte(test.b), 10); got != test.want {
			t.Errorf("%q, %q: got %d, want %d", test.a, test.b, got, test.want)
		}
		if got := editDistance(test.a, []byte(test.b), 0); (got == 0) != (test.want == 0) {
			t.Errorf("%q, %q with limit 0: got %d", test.a, test.b, got)
		}
	}
}

func TestNoMatchError(t *testing.T) {
	tests := []struct {
		err  NoMatchError
		want string
	}{
		{NoMatchError{Pattern: "maloc", Nearest: []string{"malloc"}}, "no function matches 'maloc'; nearest: malloc"},
		{NoMatchError{Kind: PatternRegex, Pattern: `a\b`, Nearest: []string{"a", "b", "c", "d"}}, `no function matches 'a\b'; nearest: a, b, c`},
		{NoMatchError{Kind: PatternModule, Pattern: "libx"}, "no module matches 'libx' and nothing is spelled like it; `sbxtrace functions` lists what can be probed"},
		{NoMatchError{Kind: PatternUSDT, Pattern: "a:b", Nearest: []string{"a:c"}}, "no static probe matches 'a:b'; nearest: a:c"},
	}
	for _, test := range tests {
		if got := test.err.Error(); got != test.want {
			t.Errorf("got  %s\nwant %s", got, test.want)
		}
		if !errors.Is(&test.err, ErrNoMatch) {
			t.Errorf("%v is not ErrNoMatch", &test.err)
		}
	}
}

// TestNearestHostile gives Nearest names and patterns whose cost could grow
// faster than their length; the test ends only if it does not.
func TestNearestHostile(t *testing.T) {
	long := strings.Repeat("ab", 1<<20)
	names := []string{long, strings.Repeat("<", 1<<20), strings.Repeat("operator ", 1<<17), strings.Repeat("a.", 1<<19)}
	for _, pattern := range append(names, "ab", "abab") {
		if got := Nearest(pattern, names, 2); len(got) > 2 {
			t.Errorf("%.20q...: %d names", pattern, len(got))
		}
	}
}

func BenchmarkNearest100000(b *testing.B) {
	fns := manyFunctions(100000)
	names := make([]string, len(fns))
	for i := range fns {
		names[i] = fns[i].Name
	}
	b.ReportAllocs()
	for b.Loop() {
		if len(Nearest("redis_modul_1_comand_55", names, 5)) == 0 {
			b.Fatal("nothing near")
		}
	}
}
