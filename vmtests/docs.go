package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/sbxtrace/sbxtrace/internal/testsum"
)

const (
	docsBegin = "<!-- results: begin, written by `make docs-kernels` -->\n"
	docsEnd   = "<!-- results: end -->\n"
)

// hostGroup is the group of integration tests that ran without a test machine.
const hostGroup = "integration"

// writeDocs replaces the part of a document between the marks by a table of the
// latest results, of the test machines and of the host.
func writeDocs(file, results string, m *manifest) error {
	var groups []*testsum.Group
	for _, k := range m.Kernels {
		g, err := testsum.ReadGroup(results, groupName(k))
		if err != nil {
			return fmt.Errorf("%w (run make vmtest first)", err)
		}
		groups = append(groups, g)
	}
	host, err := testsum.ReadGroup(results, hostGroup)
	switch {
	case err == nil:
		groups = append(groups, host)
	case !errors.Is(err, testsum.ErrNoResult):
		return err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read document: %w", err)
	}
	changed, err := replaceBetween(string(text), docsTable(groups))
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if err := os.WriteFile(file, []byte(changed), 0o644); err != nil {
		return fmt.Errorf("write document: %w", err)
	}
	return nil
}

func replaceBetween(text, part string) (string, error) {
	before, rest, ok1 := strings.Cut(text, docsBegin)
	_, after, ok2 := strings.Cut(rest, docsEnd)
	if !ok1 || !ok2 {
		return "", errors.New("the marks around the results are missing")
	}
	return before + docsBegin + part + docsEnd + after, nil
}

// docsTable lists the packages of each group. Times are left out: they would
// change with every run.
func docsTable(groups []*testsum.Group) string {
	var b strings.Builder
	b.WriteString("| kernel | machine | package | passed | failed | skipped |\n|---|---|---|---|---|---|\n")
	for _, g := range groups {
		where := "test machine"
		if g.Name == hostGroup {
			where = "host"
		}
		for _, p := range g.Packages {
			fmt.Fprintf(&b, "| %s | %s | `%s` | %d | %d | %d |\n", g.Kernel, where,
				strings.TrimPrefix(p.Name, modulePath+"/"), p.Passed, p.Failed, p.Skipped)
		}
	}
	return b.String()
}
