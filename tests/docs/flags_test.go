package docs

import (
	"maps"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// help is what a command says of itself.
type help struct {
	text  string
	flags map[string]bool // with their dashes
	subs  []string        // its commands
}

var (
	flagLine    = regexp.MustCompile(`(?m)^ +(?:-[a-zA-Z], )?(--[a-z][a-z0-9-]*)`)
	shortFlag   = regexp.MustCompile(`(?m)^ +(-[a-zA-Z]), --`)
	commandLine = regexp.MustCompile(`(?m)^  ([a-z][a-z-]*) `)
	flagInText  = regexp.MustCompile("--[a-z][a-z0-9-]*[a-z0-9]")
)

// helps returns the --help of sbxtrace and all its commands, by their names.
func helps(t *testing.T, sbxtrace string) map[string]help {
	t.Helper()
	found := map[string]help{}
	var visit func(words ...string)
	visit = func(words ...string) {
		out, err := exec.Command(sbxtrace, append(words, "--help")...).Output()
		if err != nil {
			t.Fatalf("%v --help: %v", words, err)
		}
		h := help{text: string(out), flags: map[string]bool{}}
		_, flags, _ := strings.Cut(h.text, "\nFlags:\n")
		for _, m := range append(flagLine.FindAllStringSubmatch(flags, -1), shortFlag.FindAllStringSubmatch(flags, -1)...) {
			h.flags[m[1]] = true
		}
		_, commands, _ := strings.Cut(h.text, "\nAvailable Commands:\n")
		commands, _, _ = strings.Cut(commands, "\nFlags:\n")
		for _, m := range commandLine.FindAllStringSubmatch(commands, -1) {
			// Cobra's own: shell completion and help.
			if len(words) > 0 || m[1] != "completion" && m[1] != "help" {
				h.subs = append(h.subs, m[1])
				visit(append(slices.Clone(words), m[1])...)
			}
		}
		found[strings.Join(append([]string{"sbxtrace"}, words...), " ")] = h
	}
	visit()
	return found
}

// pagesOf are the pages on which a command's flags are explained, beside
// docs/COMMAND.md.
var pagesOf = map[string][]string{
	"attach":    {"docs/selectors.md", "docs/symbols.md"},
	"run":       {"docs/attach.md", "docs/selectors.md", "docs/symbols.md"},
	"functions": {"docs/selectors.md", "docs/symbols.md"},
	"record":    {"docs/attach.md", "docs/selectors.md", "docs/symbols.md"},
	"export":    {"docs/report.md"},
}

// foreign are flags in the documentation that are not sbxtrace's, and whose they
// are.
var foreign = map[string]string{
	"--privileged":      "docker",
	"--perf-basic-prof": "node", "--interpreted-frames-native-stack": "node",
}

// TestFlags compares the flags of each command with the documentation: each has
// to be on the command's page, and pages speak of no others.
func TestFlags(t *testing.T) {
	p, err := build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	docs := pages(t)
	known := map[string]bool{}
	all := helps(t, filepath.Join(p.dir, "sbxtrace"))
	for name, h := range all {
		maps.Copy(known, h.flags)
		words := strings.Fields(name)
		if len(words) == 1 {
			continue
		}
		page := "docs/" + words[1] + ".md"
		text, ok := docs[page]
		if !ok {
			t.Errorf("%s has no page %s", name, page)
			continue
		}
		for _, more := range pagesOf[words[1]] {
			text += docs[more]
		}
		for _, flag := range slices.Sorted(maps.Keys(h.flags)) {
			if flag == "--help" || flag == "-h" {
				continue
			}
			if !regexp.MustCompile("[`\\s(]" + flag + "[`\\s=,)]").MatchString(text) {
				t.Errorf("%s: %s is not on %s", name, flag, page)
			}
		}
	}
	for page, text := range docs {
		for _, flag := range flagInText.FindAllString(withoutBlocks(text), -1) {
			if !known[flag] && foreign[flag] == "" {
				t.Errorf("%s: %s is no flag of sbxtrace", page, flag)
			}
		}
	}
	if len(all) < 5 || len(known) < 20 {
		t.Errorf("%d commands with %d flags were found in the help texts", len(all), len(known))
	}
}

// withoutBlocks is a page's prose: what its blocks show is run by TestCommands.
func withoutBlocks(text string) string {
	var kept []string
	inside := false
	for _, line := range strings.Split(text, "\n") {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			inside = !inside
		} else if !inside {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "\n")
}
