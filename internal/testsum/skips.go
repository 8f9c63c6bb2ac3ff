package testsum

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
)

// SkipList says which skips are no failure. The zero value allows none.
type SkipList struct {
	rules []skipRule
}

type skipRule struct {
	group, test, reason *regexp.Regexp
}

// ReadSkips reads an allow list from a file; see ParseSkips for its form.
func ReadSkips(path string) (SkipList, error) {
	f, err := os.Open(path)
	if err != nil {
		return SkipList{}, fmt.Errorf("open list of allowed skips: %w", err)
	}
	defer f.Close()
	list, err := ParseSkips(f)
	if err != nil {
		return SkipList{}, fmt.Errorf("%s: %w", path, err)
	}
	return list, nil
}

// ParseSkips reads an allow list: a line for each kind of skip with three
// regular expressions, which match the whole group name, the whole test
// (package.Test) and a part of the reason, separated by blanks; the reason may
// contain some. Empty lines and lines that begin with # say nothing.
func ParseSkips(r io.Reader) (SkipList, error) {
	var list SkipList
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		group, rest, _ := strings.Cut(line, " ")
		test, reason, ok := strings.Cut(strings.TrimSpace(rest), " ")
		if !ok {
			return SkipList{}, fmt.Errorf("line %d: want a group, a test and a reason", n)
		}
		var rule skipRule
		for _, p := range []struct {
			dst  **regexp.Regexp
			text string
		}{
			{&rule.group, "^(?:" + group + ")$"},
			{&rule.test, "^(?:" + test + ")$"},
			{&rule.reason, strings.TrimSpace(reason)},
		} {
			re, err := regexp.Compile(p.text)
			if err != nil {
				return SkipList{}, fmt.Errorf("line %d: %w", n, err)
			}
			*p.dst = re
		}
		list.rules = append(list.rules, rule)
	}
	if err := lines.Err(); err != nil {
		return SkipList{}, fmt.Errorf("read list of allowed skips: %w", err)
	}
	return list, nil
}

// Allows reports whether a test (package.Test) of a group may skip for a reason.
func (l SkipList) Allows(group, test, reason string) bool {
	for _, r := range l.rules {
		if r.group.MatchString(group) && r.test.MatchString(test) && r.reason.MatchString(reason) {
			return true
		}
	}
	return false
}
