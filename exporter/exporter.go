// Package exporter turns profiles and calls into files for other tools and into
// pages and text for people.
//
// Of a profile it makes pprof, folded stacks, JSON lines, flame graphs as one
// HTML or SVG file, and a report for the terminal. A profile is a
// [github.com/google/pprof/profile.Profile], whoever made it. The package reads
// profiles too, merges, filters, scales and compares them.
//
// Of a stream of calls it makes Perfetto and Chrome traces, Parquet, CSV, JSON
// lines, OpenTelemetry spans, and profiles: it is a consumer of the stream like
// any other, so that recordings and live events come out the same.
//
// It knows neither eBPF nor processes, and builds on every operating system.
package exporter

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/google/pprof/profile"
)

// Format is a kind of output.
type Format string

// Formats of profiles.
const (
	FormatPprof  Format = "pprof"      // profile.proto, gzip-compressed
	FormatFolded Format = "folded"     // a line per stack: frames from the root joined by ";", a space, the value
	FormatHTML   Format = "flamegraph" // a flame graph: one interactive HTML file
	FormatSVG    Format = "svg"        // a flame graph: one SVG image, interactive where scripts run
	FormatJSON   Format = "json"       // JSON lines, see docs/json.md
	FormatText   Format = "text"       // a report for a terminal
)

// Formats lists the formats of profiles, as `--format` has them.
var Formats = []Format{FormatPprof, FormatFolded, FormatHTML, FormatSVG, FormatJSON, FormatText}

// endings are the endings of file names and the formats they stand for, the
// longer ones first.
var endings = []struct {
	ending string
	format Format
}{
	{".perfetto-trace", FormatPerfetto}, {".pftrace", FormatPerfetto}, {".perfetto", FormatPerfetto},
	{".trace.json", FormatChrome}, {".chrome.json", FormatChrome}, {".otlp.jsonl", FormatOTLP}, {".otlp.json", FormatOTLP}, {".otlp", FormatOTLP},
	{".parquet", FormatParquet}, {".csv", FormatCSV},
	{".pb.gz", FormatPprof}, {".pprof", FormatPprof}, {".folded", FormatFolded}, {".collapsed", FormatFolded},
	{".html", FormatHTML}, {".htm", FormatHTML}, {".svg", FormatSVG}, {".jsonl", FormatJSON}, {".json", FormatJSON},
	{".txt", FormatText},
}

// FormatOf returns the format that a file's name stands for, by its ending:
// .pb.gz and .pprof, .folded and .collapsed, .html, .svg, .json and .jsonl,
// .txt, and for calls .perfetto-trace, .trace.json, .parquet, .csv and .otlp. It
// reports false for any other.
func FormatOf(path string) (Format, bool) {
	path = strings.ToLower(path)
	for _, e := range endings {
		if strings.HasSuffix(path, e.ending) {
			return e.format, true
		}
	}
	return "", false
}

// ErrFormat is matched by the error for an unknown format's name.
var ErrFormat = errors.New("unknown format")

// ParseFormat returns the format of that name; "html" is another name for
// flamegraph.
func ParseFormat(name string) (Format, error) {
	if name == "html" {
		return FormatHTML, nil
	}
	if f := Format(name); slices.Contains(CallFormats, f) {
		return f, nil
	}
	return "", fmt.Errorf("%w %q", ErrFormat, name)
}

// Options says what is written of a profile, and how. The zero value is fine.
type Options struct {
	// SampleType is the name of the type of value that stacks are measured
	// in, "cpu" for instance. Empty: the profile's own default, or else its
	// last; in folded stacks a count of samples where there is one. The
	// formats pprof and JSON have all types.
	SampleType string
	// Title stands above reports and flame graphs. Empty: one made from the
	// profile.
	Title string
	// ByThread puts a frame for the thread below each stack, so that threads
	// stand side by side. Pprof and JSON have threads as labels anyway.
	ByThread bool

	// Color adds terminal colours to text. The caller decides (terminal,
	// NO_COLOR).
	Color bool
	// Width is the number of columns that text is to fit into; 0: any.
	Width int
	// Limit is how many functions a text report has; 0: 20.
	Limit int
}

// ErrSampleType is matched by the error for a type of value that a profile does
// not have.
var ErrSampleType = errors.New("no such sample type")

// WriteProfile writes p to w. A profile with samples that [Diff] marked as those
// of a base is written as a comparison: a differential flame graph, folded
// stacks with two values, changes in a text report. It writes nothing of a
// profile that [profile.Profile.CheckValid] refuses. p is not changed and must
// not be while this runs.
func WriteProfile(w io.Writer, p *profile.Profile, format Format, opt Options) error {
	if err := p.CheckValid(); err != nil {
		return fmt.Errorf("write profile: %w", err)
	}
	if len(p.SampleType) == 0 {
		return errors.New("write profile: it has no sample types")
	}
	switch format {
	case FormatPprof:
		return writePprof(w, p)
	case FormatFolded:
		return writeFolded(w, p, opt)
	case FormatHTML:
		return writeHTML(w, p, opt)
	case FormatSVG:
		return writeSVG(w, p, opt)
	case FormatJSON:
		return writeJSON(w, p)
	case FormatText:
		return writeText(w, p, opt)
	}
	if slices.Contains(CallFormats, format) {
		return fmt.Errorf("%w: %s has calls, which a profile does not", ErrFormat, format)
	}
	return fmt.Errorf("%w %q", ErrFormat, string(format))
}

// writePprof writes p as google/pprof does.
func writePprof(w io.Writer, p *profile.Profile) error {
	if err := p.Write(w); err != nil {
		return fmt.Errorf("write pprof: %w", err)
	}
	return nil
}

// sampleType returns the index of the type of value to measure in.
func sampleType(p *profile.Profile, name string) (int, error) {
	if name == "" {
		name = p.DefaultSampleType
	}
	if name == "" {
		return len(p.SampleType) - 1, nil
	}
	var names []string
	for i, t := range p.SampleType {
		if t.Type == name {
			return i, nil
		}
		names = append(names, t.Type)
	}
	return 0, fmt.Errorf("%w %q: the profile has %s", ErrSampleType, name, strings.Join(names, ", "))
}

// countType returns the index of the type that counts samples, or that of the
// default type where there is none.
func countType(p *profile.Profile) int {
	for i, t := range p.SampleType {
		if t.Unit == "count" {
			return i
		}
	}
	i, err := sampleType(p, "")
	if err != nil {
		return len(p.SampleType) - 1
	}
	return i
}
