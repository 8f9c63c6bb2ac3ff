package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ +(.*)$`)
)

// TestLinks follows the links between pages, and sees that each page is one
// click away from the README.
func TestLinks(t *testing.T) {
	docs := pages(t)
	linked := map[string]bool{"README.md": true}
	for page, text := range docs {
		for _, m := range link.FindAllStringSubmatch(withoutBlocks(text), -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			to := page
			if target != "" {
				to = filepath.Join(filepath.Dir(page), target)
			}
			if page == "README.md" {
				linked[to] = true
			}
			if _, err := os.Stat(filepath.Join(repository, to)); err != nil {
				t.Errorf("%s links to %s, which is not there", page, to)
			} else if anchor != "" && !anchors(docs[to])[anchor] {
				t.Errorf("%s links to %s, which has no heading #%s", page, to, anchor)
			}
		}
	}
	for page := range docs {
		if !linked[page] {
			t.Errorf("README.md does not link to %s", page)
		}
	}
}

// anchors are the headings of a page as GitHub names them.
func anchors(text string) map[string]bool {
	found := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(withoutBlocks(text), -1) {
		found[strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				return unicode.ToLower(r)
			}
			return -1
		}, m[1])] = true
	}
	return found
}
