package exporter

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"strings"

	"github.com/google/pprof/profile"
)

//go:embed flame
var flameFiles embed.FS

// flameScripts are the parts of the page's program, in order.
var flameScripts = []string{"model.js", "color.js", "draw.js", "ui.js", "table.js", "keys.js"}

// embedded returns a file of the flame graph's page.
func embedded(name string) string {
	b, err := flameFiles.ReadFile("flame/" + name)
	if err != nil {
		panic(err) // it is part of this program
	}
	return strings.TrimSpace(string(b))
}

// writeHTML writes the flame graph as one page that loads nothing. Its own
// content security policy holds it to that: only the one script runs, and
// nothing is fetched.
func writeHTML(w io.Writer, p *profile.Profile, opt Options) error {
	data, err := newFlame(p, opt)
	if err != nil {
		return err
	}
	// json.Marshal writes <, > and & as escapes, so no name can end the
	// script element that the data stands in.
	text, err := json.Marshal(data)
	if err != nil {
		return fmt.Errorf("write flame graph: %w", err)
	}
	var script strings.Builder
	script.WriteString("(() => {\n'use strict';\n")
	for _, name := range flameScripts {
		script.WriteString(embedded(name) + "\n\n")
	}
	script.WriteString("})();")
	sum := sha256.Sum256([]byte(script.String()))
	notes := ""
	for _, n := range data.notes {
		notes += "<li>" + html.EscapeString(n) + "</li>"
	}
	page := strings.NewReplacer(
		"{{hash}}", "'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'",
		"{{title}}", html.EscapeString(data.title), "{{facts}}", html.EscapeString(strings.Join(data.facts, " · ")),
		"{{notes}}", notes, "{{style}}", embedded("style.css"), "{{data}}", string(text), "{{script}}", script.String(),
	)
	if _, err := page.WriteString(w, embedded("page.html")+"\n"); err != nil {
		return fmt.Errorf("write flame graph: %w", err)
	}
	return nil
}
