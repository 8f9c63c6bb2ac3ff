package main

import (
	"encoding/json"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/sbxtrace/sbxtrace/loader"
)

func doctorCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say what this machine can do, and what is missing",
		Long: `Doctor tries every kernel feature that sbxtrace uses and says which are there,
what is missing, and what to do about it. It exits with 0 when tracing works.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("doctor takes no arguments")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := choice("--format", format, map[string]bool{"text": true, "json": true}); err != nil {
				return err
			}
			features := loader.Features()
			out, err := openOutput("", cmd.OutOrStdout(), "auto")
			if err != nil {
				return err
			}
			if format == "json" {
				err = doctorJSON(out, features)
			} else {
				doctorText(out, features, out.color)
			}
			if err == nil && !loader.Usable(features) {
				err = exitStatus(exitFailure)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&format, "format", "text", "text or json (one object per line)")
	return cmd
}

func doctorJSON(w io.Writer, features []loader.Feature) error {
	enc := json.NewEncoder(w)
	for _, f := range features {
		if err := enc.Encode(map[string]any{
			"feature": f.Name, "state": f.State.String(), "required": f.Required, "detail": f.Detail, "fix": f.Fix,
		}); err != nil {
			return err
		}
	}
	return nil
}

func doctorText(w io.Writer, features []loader.Feature, color bool) {
	marks := map[loader.State]string{loader.Available: "✓", loader.Unsupported: "✗", loader.Undetermined: "?"}
	colors := map[loader.State]string{loader.Available: "\x1b[32m", loader.Unsupported: "\x1b[31m", loader.Undetermined: "\x1b[33m"}
	width := 0
	for _, f := range features {
		width = max(width, utf8.RuneCountInString(f.Name))
	}
	for _, f := range features {
		on, off := "", ""
		if color {
			on, off = colors[f.State], "\x1b[0m"
		}
		text := f.Detail
		if f.Fix != "" && f.State != loader.Available {
			if text != "" {
				text += ": "
			}
			text += f.Fix
		}
		if text == "" {
			fmt.Fprintf(w, "%s%s%s %s\n", on, marks[f.State], off, f.Name)
			continue
		}
		fmt.Fprintf(w, "%s%s%s %-*s  %s\n", on, marks[f.State], off, width, f.Name, text)
	}
	if loader.Usable(features) {
		fmt.Fprintln(w, "\nTracing works on this machine.")
		return
	}
	fmt.Fprintln(w, "\nTracing does not work yet: see the lines with ✗.")
}
