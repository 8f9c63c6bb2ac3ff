package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/sbxtrace/sbxtrace/internal/term"
	"github.com/sbxtrace/sbxtrace/loader"
)

func doctorCommand() *cobra.Command {
	var format, color string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say what this machine can do, and what is missing",
		Long: `Doctor tries every kernel feature that sbxtrace uses, on code of its own, and
says which are there, what is missing, and what to do about it. It measures what
a probe costs here. Without root it cannot try most of it, and says so.

Its exit status is 0 when tracing works and 1 when it does not.`,
		Example: `  sudo sbxtrace doctor
  sudo sbxtrace doctor --format json | jq -r 'select(.state=="unsupported") | .name'`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("doctor takes no arguments")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat(format, color); err != nil {
				return err
			}
			ctx, stop := untilSignal()
			defer stop()
			d := loader.Diagnose(ctx)
			out, err := openOutput("", cmd.OutOrStdout(), color)
			if err != nil {
				return err
			}
			return doctor(out, d, format == "json")
		},
	}
	cmd.Flags().StringVar(&format, "format", "text", "text or json (one object per line)")
	cmd.Flags().StringVar(&color, "color", "auto", "auto, always or never")
	return cmd
}

// checkFormat checks the values of --format and --color.
func checkFormat(format, color string) error {
	if _, err := choice("--format", format, map[string]bool{"text": true, "json": true}); err != nil {
		return err
	}
	_, err := choice("--color", color, map[string]bool{"auto": true, "always": true, "never": true})
	return err
}

// doctor prints a diagnosis; its error makes the exit status.
func doctor(out *output, d *loader.Diagnosis, asJSON bool) error {
	var b bytes.Buffer
	if asJSON {
		if err := doctorJSON(&b, d); err != nil {
			return err
		}
	} else {
		doctorText(&b, d, out.color)
	}
	if _, err := out.Write(b.Bytes()); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	if len(d.Missing()) > 0 {
		return exitStatus(exitFailure)
	}
	return nil
}

// The lines of --format json; docs/json.md describes them.
type (
	machineLine struct {
		Type          string `json:"type"`
		Release       string `json:"release"`
		Arch          string `json:"arch"`
		CPUs          int    `json:"cpus"`
		UID           int    `json:"uid"`
		Hypervisor    string `json:"hypervisor"`
		Container     string `json:"container"`
		PIDNamespace  bool   `json:"pid_namespace"`
		UserNamespace bool   `json:"user_namespace"`
	}
	featureLine struct {
		Type     string `json:"type"`
		ID       string `json:"id"`
		Group    string `json:"group"`
		Name     string `json:"name"`
		State    string `json:"state"`
		Required bool   `json:"required"`
		Use      string `json:"use,omitempty"`
		Since    string `json:"since,omitempty"`
		Detail   string `json:"detail,omitempty"`
		Fix      string `json:"fix,omitempty"`
		Error    string `json:"error,omitempty"`
	}
	calibrationLine struct {
		Type     string `json:"type"`
		Emulated uint32 `json:"emulated_ns,omitempty"`
		Stepped  uint32 `json:"stepped_ns,omitempty"`
		Nop5     uint32 `json:"nop5_ns,omitempty"`
		Return   uint32 `json:"return_ns,omitempty"`
		Error    string `json:"error,omitempty"`
	}
	verdictLine struct {
		Type    string   `json:"type"`
		Tracing bool     `json:"tracing"`
		Missing []string `json:"missing"`
	}
)

func doctorJSON(w io.Writer, d *loader.Diagnosis) error {
	m, c := &d.Machine, &d.Calibration
	lines := []any{machineLine{
		"machine", m.Release, m.Arch, m.CPUs, m.UID, m.Hypervisor, m.Container, m.PIDNamespace, m.UserNamespace,
	}}
	for i := range d.Features {
		f := &d.Features[i]
		line := featureLine{
			Type: "feature", ID: f.ID, Group: string(f.Group), Name: f.Name, State: f.State.String(), Required: f.Required,
			Use: f.Use, Since: f.Since, Detail: f.Detail, Fix: f.Fix,
		}
		if f.Err != nil {
			line.Error = f.Err.Error()
		}
		lines = append(lines, line)
	}
	if d.CalibrationErr != nil {
		lines = append(lines, calibrationLine{Type: "calibration", Error: d.CalibrationErr.Error()})
	} else {
		lines = append(lines, calibrationLine{
			Type: "calibration", Emulated: c.EntryEmulatedNS, Stepped: c.EntrySteppedNS, Nop5: c.EntryNop5NS, Return: c.ReturnNS,
		})
	}
	missing := []string{}
	for _, f := range d.Missing() {
		missing = append(missing, f.ID)
	}
	lines = append(lines, verdictLine{"verdict", len(missing) == 0, missing})
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for _, l := range lines {
		if err := enc.Encode(l); err != nil {
			return err
		}
	}
	return nil
}

// doctorText prints a table for people.
func doctorText(w io.Writer, d *loader.Diagnosis, color bool) {
	p := paint(color)
	fmt.Fprintf(w, "%s\n", machineText(&d.Machine))
	width := 0
	for _, row := range costRows(&d.Calibration) {
		width = max(width, len(row.name))
	}
	for i := range d.Features {
		width = max(width, utf8.RuneCountInString(d.Features[i].Name))
	}
	group := loader.FeatureGroup("")
	for i := range d.Features {
		f := &d.Features[i]
		if f.Group != group {
			group = f.Group
			fmt.Fprintf(w, "\n%s%s%s\n", p.bold, groupTitles[group], p.reset)
		}
		featureText(w, f, width, p)
	}
	fmt.Fprintf(w, "\n%sCost of a probe that is hit, measured here%s\n", p.bold, p.reset)
	calibrationText(w, d, width, p)
	verdictText(w, d, p)
}

// groupTitles are the headings of the table.
var groupTitles = map[loader.FeatureGroup]string{
	loader.GroupRights: "Rights", loader.GroupKernel: "Kernel", loader.GroupSettings: "Settings",
}

// palette are the escape sequences in use, all empty without colour.
type palette struct{ green, red, yellow, bold, dim, reset string }

func paint(color bool) palette {
	if !color {
		return palette{}
	}
	return palette{"\x1b[32m", "\x1b[31m", "\x1b[33m", "\x1b[1m", "\x1b[2m", "\x1b[0m"}
}

// machineText says where sbxtrace runs.
func machineText(m *loader.Machine) string {
	parts := []string{"Linux " + m.Release, m.Arch, count(m.CPUs, "CPU")}
	if m.Hypervisor != "" {
		parts = append(parts, "under "+m.Hypervisor)
	}
	if m.Container != "" {
		parts = append(parts, "in a container ("+m.Container+")")
	}
	text := strings.Join(parts, ", ")
	if m.PIDNamespace {
		text += "\nA pid namespace of its own: processes outside of it cannot be targets"
	}
	return text
}

// featureText prints a line for what is there, and one more for the remedy of
// what is not.
func featureText(w io.Writer, f *loader.Feature, width int, p palette) {
	mark, on := "?", p.yellow
	text := f.Detail
	switch f.State {
	case loader.Available:
		mark, on = "✓", p.green
		if text == "" {
			text = f.Use
		}
	case loader.Unsupported:
		mark, on = "✗", p.yellow
		if f.Required {
			on = p.red
		}
	}
	if f.State != loader.Available && f.Use != "" {
		text += " (" + f.Use + ")"
	}
	pad := strings.Repeat(" ", width-utf8.RuneCountInString(f.Name))
	fmt.Fprintf(w, "  %s%s%s %s%s  %s\n", on, mark, p.reset, f.Name, pad, strings.TrimSpace(text))
	// What privileges would tell is said once, at the end.
	if f.Fix != "" && f.Group != loader.GroupRights && !isPermission(f.Err) {
		fmt.Fprintf(w, "    %s  → %s\n", strings.Repeat(" ", width), f.Fix)
	}
}

// isPermission reports whether a trial failed for want of privileges.
func isPermission(err error) bool {
	return errors.Is(err, loader.ErrPermission) || errors.Is(err, fs.ErrPermission)
}

func calibrationText(w io.Writer, d *loader.Diagnosis, width int, p palette) {
	if d.CalibrationErr != nil {
		reason := d.CalibrationErr.Error()
		if isPermission(d.CalibrationErr) {
			reason = "not allowed to try"
		}
		fmt.Fprintf(w, "  %s?%s %-*s  %s\n", p.yellow, p.reset, width, "not measured", reason)
		return
	}
	for _, row := range costRows(&d.Calibration) {
		if row.ns > 0 {
			fmt.Fprintf(w, "    %-*s  %s%s\n", width, row.name, term.Duration(uint64(row.ns)), row.note)
		}
	}
}

// costRow is a line of what probes cost.
type costRow struct {
	name string
	ns   uint32 // 0: there is no such thing here
	note string
}

func costRows(c *loader.Calibration) []costRow {
	return []costRow{
		{"instruction that is emulated", c.EntryEmulatedNS, ""},
		{"instruction that is single-stepped", c.EntrySteppedNS, times(c.EntrySteppedNS, c.EntryEmulatedNS)},
		{"nop of five bytes", c.EntryNop5NS, ""},
		{"return probe, on top of its entry", c.ReturnNS, ""},
	}
}

// times says how many times as much a is, from twice on.
func times(a, b uint32) string {
	if b == 0 || a < 2*b {
		return ""
	}
	return fmt.Sprintf(", %d times as much: sbxtrace avoids it where a function lets it", (a+b/2)/b)
}

func verdictText(w io.Writer, d *loader.Diagnosis, p palette) {
	missing := d.Missing()
	if len(missing) == 0 {
		fmt.Fprintf(w, "\n%sTracing works here.%s\n", p.green, p.reset)
		return
	}
	untried := 0
	var lacking, rights []string
	for i := range missing {
		switch f := &missing[i]; {
		case f.Group == loader.GroupRights:
			rights = append(rights, f.Name)
		case f.State == loader.Unsupported:
			lacking = append(lacking, f.Name)
		default:
			untried++
		}
	}
	switch {
	case len(lacking) > 0:
		fmt.Fprintf(w, "\n%sTracing does not work here; missing: %s.%s\n", p.red, strings.Join(lacking, ", "), p.reset)
	case len(rights) > 0:
		fmt.Fprintf(w, "\n%sTracing takes %s: run it with sudo.%s", p.yellow, strings.Join(rights, " and "), p.reset)
		if untried > 0 {
			fmt.Fprintf(w, " `sudo sbxtrace doctor` tries what could not be tried now.")
		}
		fmt.Fprintln(w)
	default:
		fmt.Fprintf(w, "\n%sWhether tracing works here could not be found out: see the lines with ?.%s\n", p.yellow, p.reset)
	}
}
