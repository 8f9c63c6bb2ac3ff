package main

import (
	"bufio"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/sbxtrace/sbxtrace/exporter"
)

type exportFlags struct {
	inputFlags
	output, format, title string
}

func exportCommand() *cobra.Command {
	var f exportFlags
	cmd := &cobra.Command{
		Use:   "export FILE… -o OUT",
		Short: "Turn profiles and recordings into flame graphs, traces, tables and other files",
		Long: `Export reads profiles and recordings and writes them as OUT's ending says, or
--format:

  .html              flame graph, one interactive page that loads nothing
  .svg               flame graph as an image
  .pb.gz             pprof, for go tool pprof, speedscope, Perfetto
  .folded            folded stacks, a line per stack, for flamegraph.pl and others
  .json              JSON lines
  .txt               the report that sbxtrace report prints

and recordings, call by call, also as:

  .perfetto-trace    Perfetto's protobuf trace, for ui.perfetto.dev
  .trace.json        Chrome's trace events
  .parquet           a row per call in typed columns, for DuckDB and others
  .csv               a row per call
  .otlp              OpenTelemetry spans, lines of OTLP/JSON; -o http://HOST:4318/v1/traces
                     sends them to a collector

FILE is a pprof profile, of whichever tool, folded stacks, or a recording, whose
calls are summed up by stack; - is standard input. Several are merged. With --base the output is a comparison: a
differential flame graph, folded stacks with two values, a pprof profile that
go tool pprof shows as -diff_base does.`,
		Example: `  sbxtrace export cpu.pb.gz -o cpu.html
  sbxtrace export new.pb.gz --base old.pb.gz -o diff.html
  sbxtrace export monday.pb.gz tuesday.pb.gz -o both.pb.gz
  sbxtrace export calls.sbx -o calls.perfetto-trace
  sbxtrace export cpu.pb.gz --thread 'io_*' --format folded | flamegraph.pl >workers.svg`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("no file to export")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return export(cmd, &f, args) },
	}
	f.inputFlags.add(cmd)
	fs := cmd.Flags()
	fs.StringVarP(&f.output, "output", "o", "", "write to `file`; - is standard output")
	fs.StringVar(&f.format, "format", "", "pprof, folded, flamegraph, svg, json, text, chrome, perfetto, parquet, csv or otlp, whatever OUT's ending")
	fs.StringVar(&f.title, "title", "", "`text` above flame graphs and reports")
	return cmd
}

func export(cmd *cobra.Command, f *exportFlags, paths []string) error {
	format, err := outputFormat(f.format, f.output)
	if err != nil {
		return err
	}
	if !slices.Contains(exporter.Formats, format) || format == exporter.FormatJSON {
		rec, err := openRecording(paths[0])
		switch {
		case err != nil:
			return err
		case rec != nil:
			defer rec.Close()
			if len(paths) > 1 || f.given() {
				return usagef("%s has each call of one recording: several, and flags that choose or compare, are for profiles", format)
			}
			return exportCalls(cmd, rec, paths[0], format, f.output)
		}
	}
	p, err := f.read(cmd, paths)
	if err != nil {
		return err
	}
	out, err := openOutput(f.output, cmd.OutOrStdout(), "auto")
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(out, 64<<10)
	err = exporter.WriteProfile(w, p, format, exporter.Options{
		SampleType: f.sampleType, Title: f.title, ByThread: f.byThread, Color: out.color, Width: out.width,
	})
	return asUsage(errors.Join(err, w.Flush(), out.Close()))
}

// outputFormat is the format of that name, else the one that a file's ending
// stands for.
func outputFormat(name, path string) (exporter.Format, error) {
	if isURL(path) {
		if name != "" && name != string(exporter.FormatOTLP) {
			return "", usagef("%s: only --format otlp can be sent", path)
		}
		return exporter.FormatOTLP, nil
	}
	return formatAmong(exporter.CallFormats, name, path)
}

// profileFormat is outputFormat for what has no calls.
func profileFormat(name, path string) (exporter.Format, error) {
	return formatAmong(exporter.Formats, name, path)
}

func formatAmong(formats []exporter.Format, name, path string) (exporter.Format, error) {
	names := list(formatNames(formats))
	if name != "" {
		format, err := exporter.ParseFormat(name)
		if err == nil && !slices.Contains(formats, format) {
			err = fmt.Errorf("%s is for calls", format)
		}
		if err != nil {
			return "", usageError{fmt.Errorf("%w: --format takes %s", err, names)}
		}
		return format, nil
	}
	if path == "" || path == "-" {
		return "", usagef("where to? -o FILE, or --format %s for standard output", names)
	}
	format, ok := exporter.FormatOf(path)
	if !ok || !slices.Contains(formats, format) {
		return "", usagef("the ending of %s does not say which format: --format %s", path, names)
	}
	return format, nil
}

func formatNames(formats []exporter.Format) []string {
	var names []string
	for _, f := range formats {
		names = append(names, string(f))
	}
	return names
}
