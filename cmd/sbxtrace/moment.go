package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/sbxtrace/sbxtrace/internal/term"
	"github.com/sbxtrace/sbxtrace/recording"
	"github.com/sbxtrace/sbxtrace/replay"
	"github.com/sbxtrace/sbxtrace/trace"
)

// printMoment prints the calls that every thread is in at the time of --at.
func printMoment(out *output, f *replayFlags, rec *recording.File, p *replay.Player) error {
	at, err := replay.ParseTime(rec, f.at)
	if err != nil {
		return usagef("--at: %w", err)
	}
	if err := p.Seek(at); err != nil {
		return err
	}
	if f.format == "json" {
		return momentJSON(out, p, at)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", moment(rec, at))
	if len(p.Lanes()) == 0 {
		b.WriteString("\n  no call is open\n")
	}
	appendLanes(&b, out, p, at)
	_, err = io.WriteString(out, b.String())
	return err
}

// appendLanes prints the open calls of every thread.
func appendLanes(b *strings.Builder, out *output, p *replay.Player, at uint64) {
	text := term.NewPalette(out.color)
	for _, l := range p.Lanes() {
		fmt.Fprintf(b, "\n%s%s%s\n", text.Bold, laneName(p, l), text.Reset)
		appendOpen(b, out, p, l, at, 2)
	}
}

// appendOpen prints the open calls of a thread, outermost first.
func appendOpen(b *strings.Builder, out *output, p *replay.Player, l *trace.Lane, at uint64, indent int) {
	text := term.NewPalette(out.color)
	for i := range l.Open {
		c := &l.Open[i]
		fn := p.Names().Func(c.Func)
		b.WriteString(strings.Repeat(" ", indent+2*min(i, 40)))
		b.WriteString(term.Clean(fn.Name))
		b.WriteString(arguments(c))
		if fn.Module != "" {
			fmt.Fprintf(b, " %s[%s]%s", text.Dim, term.Clean(fn.Module), text.Reset)
		}
		fmt.Fprintf(b, "  %sfor %s%s%s\n", text.Dim, brief(at-min(at, c.Start)), openNote(c), text.Reset)
	}
}

// openNote tells what is special about an open call.
func openNote(c *trace.Call) string {
	switch {
	case c.Gap:
		return ", events lost inside"
	case c.Inherited:
		return ", since before the fork"
	}
	return ""
}

// arguments are the raw arguments of a call, if there are any.
func arguments(c *trace.Call) string {
	if c.NArgs == 0 {
		return ""
	}
	var b strings.Builder
	for i, a := range c.Args[:min(int(c.NArgs), len(c.Args))] {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%#x", a)
	}
	return "(" + b.String() + ")"
}

// moment says when at is: from the beginning, and by the clock.
func moment(rec *recording.File, at uint64) string {
	first, _ := rec.Span()
	s := fmt.Sprintf("%.9f s", float64(int64(at-first))/1e9)
	if wall, ok := rec.Wall(at); ok {
		s += time.Unix(0, int64(at)+wall).Format("   2006-01-02 15:04:05.000000000 -0700")
	}
	return s
}

// laneName names a thread or goroutine and its process.
func laneName(p *replay.Player, l *trace.Lane) string {
	var b strings.Builder
	switch {
	case l.GoID != 0:
		fmt.Fprintf(&b, "goroutine %d on thread %d", l.GoID, l.TID)
	case l.PID == l.TID:
		fmt.Fprintf(&b, "thread %d, main", l.TID)
	default:
		fmt.Fprintf(&b, "thread %d", l.TID)
	}
	if l.Comm != "" {
		fmt.Fprintf(&b, " (%s)", term.Clean(l.Comm))
	}
	fmt.Fprintf(&b, " of process %d", l.PID)
	if proc, ok := p.Names().Process(l.PID); ok && proc.Exe != "" {
		fmt.Fprintf(&b, ": %s", term.Clean(proc.Exe))
	}
	return b.String()
}

// openCall is a line of --at with --format json.
type openCall struct {
	Type   string   `json:"type"` // "open"
	At     uint64   `json:"at"`
	TS     uint64   `json:"ts"`
	PID    uint32   `json:"pid"`
	TID    uint32   `json:"tid"`
	GoID   uint64   `json:"goid"`
	Comm   string   `json:"comm"`
	Depth  int32    `json:"depth"`
	Func   string   `json:"func"`
	Module string   `json:"module"`
	Args   []string `json:"args,omitempty"`
	Gap    bool     `json:"gap,omitempty"`
}

func momentJSON(out *output, p *replay.Player, at uint64) error {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	for _, l := range p.Lanes() {
		for i := range l.Open {
			c := &l.Open[i]
			fn := p.Names().Func(c.Func)
			line := openCall{
				Type: "open", At: at, TS: c.Start, PID: l.PID, TID: l.TID, GoID: l.GoID, Comm: l.Comm, Depth: c.Depth,
				Func: fn.Name, Module: moduleName(fn), Gap: c.Gap,
			}
			for _, a := range c.Args[:min(int(c.NArgs), len(c.Args))] {
				line.Args = append(line.Args, fmt.Sprintf("%#x", a))
			}
			if err := enc.Encode(line); err != nil {
				return err
			}
		}
	}
	return nil
}
