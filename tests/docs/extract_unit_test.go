package docs

import (
	"slices"
	"strings"
	"testing"
)

func TestExtract(t *testing.T) {
	page := strings.ReplaceAll(`
'''console
$ one \
    two
out 1

out 2
$ three
$ echo $?
3
'''

'''text
of three
'''

'''text
an excerpt
'''

'''sh
four   # comment
# five
six
'''

'''console
$ seven
'''
'''text
…
an excerpt
'''
`, "'''", "```")
	got, err := extract("p", page)
	if err != nil {
		t.Fatal(err)
	}
	want := []command{
		{"p", 3, "one two", []string{"out 1", "out 2"}, 0},
		{"p", 8, "three", []string{"of three"}, 3},
		{"p", 22, "four   # comment", nil, 0},
		{"p", 24, "six", nil, 0},
		{"p", 28, "seven", nil, 0},
	}
	if len(got) != len(want) {
		t.Fatalf("%d commands: %+v", len(got), got)
	}
	for i := range got {
		if got[i].Text != want[i].Text || got[i].Status != want[i].Status || got[i].Line != want[i].Line || !slices.Equal(got[i].Shown, want[i].Shown) {
			t.Errorf("%+v, want %+v", got[i], want[i])
		}
	}
	for _, bad := range []string{
		"'''console\noutput\n'''", "'''text\n$ command\n'''", "'''brainfuck\n'''", "'''console\n$ a \\\n'''", "'''console\n$ echo $?\n1\n'''",
	} {
		if _, err := extract("p", strings.ReplaceAll(bad, "'''", "```")); err == nil {
			t.Errorf("%q passes", bad)
		}
	}
}

func TestExtractHelp(t *testing.T) {
	got := extractHelp("h", "Text:\n  sudo sbxtrace a b     what it does\n\nUsage:\n  sbxtrace x [flags]\n\nExamples:\n  sbxtrace c\n")
	if len(got) != 2 || got[0].Text != "sudo sbxtrace a b" || got[1].Text != "sbxtrace c" {
		t.Errorf("%+v", got)
	}
}

func TestMissing(t *testing.T) {
	printed := []string{"   4.43 ms      597 │       read_page()", "attached: 1 function in 2 modules of pid 9, 90 ms", "1 744 calls of 17 functions in 1.96 s", "demo.c  /usr/src/demo.c:81  0x55d0c0"}
	for _, c := range []struct {
		shown   string
		ordered bool
		lacking int
	}{
		{"9.1 µs 12345 │ read_page()", true, 0},
		{"9.1 µs 12345 │ read_pages()", true, 1},
		{"9.1 µs 12345 │ ≥ read_page()", true, 1},
		{"attached: 20 functions in 1 module of pid 12, 1.2 s", true, 0},
		{"…\n3 calls of 1 function in 4 ms", true, 0},
		{"demo.c  …demo.c:7 0x1", true, 0},
		{"demo.c /home/me/demo.c:7  0x1", true, 0},
		{"1 calls of 17 functions in 1.96 s\n1 s 1 │ read_page()", true, 1},
		{"1 calls of 17 functions in 1.96 s\n1 s 1 │ read_page()", false, 0},
	} {
		if got := missing(strings.Split(c.shown, "\n"), printed, c.ordered); len(got) != c.lacking {
			t.Errorf("%q: lacking %q", c.shown, got)
		}
	}
}
