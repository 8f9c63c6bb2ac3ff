package docs

import (
	"fmt"
	"strings"
)

// command is one that a page shows.
type command struct {
	Page   string
	Line   int      // where it stands, from 1
	Text   string   // as typed, without the prompt
	Shown  []string // its output as shown; nil: none is
	Status int      // that a following `echo $?` shows; 0 if there is none
}

func (c *command) String() string { return fmt.Sprintf("%s:%d: %s", c.Page, c.Line, c.Text) }

// languages are the info strings of fenced blocks, and whether commands are in
// them.
var languages = map[string]bool{
	"console": true, "sh": true,
	"text": false, "json": false, "go": false, "c": false, "html": false, "yaml": false, "svg": false, "sql": false, "python": false,
}

// extract finds the commands of a page.
func extract(page, text string) ([]command, error) {
	var found []command
	var language string // of the open block, "" outside
	var begin int
	adjacent := false // nothing but blanks since a console block
	var open *command // that the next lines are output of, or belong to
	continued := false
	for i, line := range strings.Split(text, "\n") {
		trimmed := strings.TrimSpace(line)
		if fence, ok := strings.CutPrefix(trimmed, "```"); ok {
			if language != "" {
				if continued {
					return nil, fmt.Errorf("%s:%d: the command goes on and its block ends", page, i+1)
				}
				adjacent = language == "console"
				language = ""
				continue
			}
			if _, known := languages[fence]; !known {
				return nil, fmt.Errorf("%s:%d: a block of the unknown language %q", page, i+1, fence)
			}
			language, begin = fence, i
			if fence != "text" || !adjacent {
				open = nil
			}
			continue
		}
		switch {
		case language == "":
			adjacent = adjacent && trimmed == ""
		case continued:
			found[len(found)-1].Text, continued = cutContinuation(found[len(found)-1].Text + " " + trimmed)
		case language == "console" && strings.HasPrefix(line, "$ "), language == "sh" && trimmed != "" && trimmed[0] != '#':
			c := command{Page: page, Line: i + 1}
			c.Text, continued = cutContinuation(strings.TrimPrefix(line, "$ "))
			found = append(found, c)
			open = &found[len(found)-1]
		case strings.HasPrefix(line, "$ "):
			return nil, fmt.Errorf("%s:%d: a command in a block of the language %s, where none is looked for", page, i+1, language)
		case language == "console" && open == nil && trimmed != "":
			return nil, fmt.Errorf("%s:%d: output without a command", page, i+1)
		case language == "console" && trimmed != "", language == "text" && open != nil && trimmed != "":
			if language == "text" && i == begin+1 && trimmed == ellipsis {
				open = nil
				continue
			}
			open.Shown = append(open.Shown, line)
		}
	}
	return statuses(found)
}

// cutContinuation removes a backslash at the end and reports whether it was there.
func cutContinuation(line string) (string, bool) {
	before, ok := strings.CutSuffix(line, "\\")
	return strings.TrimSpace(before), ok
}

// statuses takes each `echo $?` for the status of the command before it.
func statuses(all []command) ([]command, error) {
	var kept []command
	for _, c := range all {
		if c.Text != "echo $?" {
			kept = append(kept, c)
			continue
		}
		if len(kept) == 0 || len(c.Shown) == 0 {
			return nil, fmt.Errorf("%s:%d: echo $? without a command before it or a number below it", c.Page, c.Line)
		}
		before := &kept[len(kept)-1]
		if _, err := fmt.Sscan(c.Shown[0], &before.Status); err != nil {
			return nil, fmt.Errorf("%s:%d: status %q: %w", c.Page, c.Line, c.Shown[0], err)
		}
		before.Shown = append(before.Shown, c.Shown[1:]...) // of a block of its own
	}
	return kept, nil
}

// extractHelp finds the commands of a --help text: its indented lines that call
// sbxtrace. What stands behind a wide gap explains.
func extractHelp(page, text string) []command {
	var found []command
	usage := false
	for i, line := range strings.Split(text, "\n") {
		if !strings.HasPrefix(line, "  ") {
			usage = strings.HasPrefix(line, "Usage:")
			continue
		}
		line = strings.TrimSpace(line)
		if !usage && (strings.HasPrefix(line, "sbxtrace ") || strings.HasPrefix(line, "sudo sbxtrace ")) {
			line, _, _ = strings.Cut(line, "   ")
			found = append(found, command{Page: page, Line: i + 1, Text: line})
		}
	}
	return found
}
