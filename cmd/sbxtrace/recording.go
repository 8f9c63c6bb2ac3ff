package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sbxtrace/sbxtrace/internal/term"
	"github.com/sbxtrace/sbxtrace/recording"
	"github.com/sbxtrace/sbxtrace/replay"
)

func recordingCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "recording",
		Short: "Look after recordings: info, verify, repair, merge, cut, anonymize",
		Long: `Recording looks after files that record, attach and run have written. It changes
none of them: what it makes is a new one.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(infoCommand(), verifyCommand(), repairCommand(), mergeCommand(), cutCommand(), anonymizeCommand())
	return cmd
}

// errDamaged is the outcome of a verify that found something: a check that did
// not pass.
var errDamaged = exitError{exitCheck, errors.New("the recording is damaged: `sbxtrace recording repair` saves what is readable")}

func infoCommand() *cobra.Command {
	var format string
	var blocks bool
	cmd := &cobra.Command{
		Use:     "info FILE",
		Short:   "Say what a recording is of, and how much is in it",
		Example: "  sbxtrace recording info server.sbx",
		Args:    oneFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := choice("--format", format, map[string]bool{"text": true, "json": true}); err != nil {
				return err
			}
			f, err := recording.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			i := describeRecording(f, blocks)
			if format == "json" {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetEscapeHTML(false)
				return enc.Encode(i)
			}
			_, err = io.WriteString(cmd.OutOrStdout(), i.text(args[0], f))
			return err
		},
	}
	cmd.Flags().StringVar(&format, "format", "text", "text or json")
	cmd.Flags().BoolVar(&blocks, "blocks", false, "list the blocks too")
	return cmd
}

// recordingInfo is what info prints; its JSON is described in docs/recording.md.
type recordingInfo struct {
	Bytes   int64             `json:"bytes"`
	Format  uint16            `json:"format"`
	Ended   bool              `json:"ended"` // in order, with an index
	Damage  bool              `json:"damaged"`
	First   uint64            `json:"first"` // ns, CLOCK_MONOTONIC
	Last    uint64            `json:"last"`
	Wall    string            `json:"wall,omitempty"` // of First, RFC 3339
	Blocks  int               `json:"blocks"`
	Events  uint64            `json:"events"`
	Calls   uint64            `json:"calls"`
	Lost    uint64            `json:"lost"`
	Marks   uint64            `json:"marks"`
	Session recording.Session `json:"session"`
	List    []blockInfo       `json:"list,omitempty"`
}

// blockInfo is a block of events in it.
type blockInfo struct {
	Seq    uint64 `json:"seq"`
	Offset int64  `json:"offset"`
	Stored uint32 `json:"stored"`
	Raw    uint32 `json:"raw"`
	First  uint64 `json:"first"`
	Last   uint64 `json:"last"`
	Events uint32 `json:"events"`
	Calls  uint32 `json:"calls"`
	Lost   uint64 `json:"lost"`
}

func describeRecording(f *recording.File, blocks bool) *recordingInfo {
	i := &recordingInfo{Bytes: f.Size(), Ended: f.Indexed, Damage: f.Damage.Any(), Blocks: len(f.Blocks) + len(f.Rows), Session: f.Session}
	i.First, i.Last = f.Span()
	if wall, ok := f.Wall(i.First); ok {
		i.Wall = time.Unix(0, int64(i.First)+wall).Format(time.RFC3339Nano)
	}
	for n := range f.Blocks {
		b := &f.Blocks[n]
		h := &b.Header
		i.Format = h.Version
		i.Events += uint64(h.Events)
		i.Calls += uint64(h.Calls)
		i.Lost += h.Lost
		i.Marks += uint64(h.Marks)
		if blocks {
			i.List = append(i.List, blockInfo{h.Seq, b.Offset, h.Stored, h.Raw, h.First, h.Last, h.Events, h.Calls, h.Lost})
		}
	}
	return i
}

func (i *recordingInfo) text(path string, f *recording.File) string {
	var b strings.Builder
	line := func(what, format string, args ...any) {
		fmt.Fprintf(&b, "%-10s %s\n", what, term.Clean(fmt.Sprintf(format, args...)))
	}
	s := &i.Session
	line("file", "%s, %s, format %d, %s", path, term.Bytes(i.Bytes), i.Format, count(i.Blocks, "block"))
	switch {
	case i.Damage:
		line("state", "damaged: sbxtrace recording verify says how")
	case !i.Ended:
		line("state", "not ended in order, or being written")
	default:
		line("state", "complete")
	}
	if s.Tool != "" {
		line("made by", "%s", s.Tool)
	}
	if len(s.Command) > 0 {
		line("command", "%s", strings.Join(s.Command, " "))
	}
	if s.Host+s.Kernel != "" {
		line("machine", "%s, %s %s %s, %d CPUs", s.Host, s.OS, s.Kernel, s.Arch, s.CPUs)
	}
	if i.Wall != "" {
		line("begins", "%s", i.Wall)
	}
	line("lasts", "%s", term.Duration(i.Last-i.First))
	for n, t := range s.Targets {
		if n == 10 {
			line("", "and %d more", len(s.Targets)-n)
			break
		}
		line(label("targets", n), "%d %s", t.PID, strings.Join(append([]string{t.Exe}, rest(t.Args)...), " "))
	}
	for n, m := range s.Modules {
		if n == 10 {
			line("", "and %d more", len(s.Modules)-n)
			break
		}
		line(label("modules", n), "%s: %s, build-id %s", m.Path, count(m.Functions, "function"), orNone(m.BuildID))
	}
	line("level", "%s", s.Level)
	if s.Ring != nil {
		line("ring", "the newest%s%s", boundOf(s.Ring.Bytes > 0, " "+term.Bytes(s.Ring.Bytes)), boundOf(s.Ring.Last > 0, " "+s.Ring.Last.String()))
	}
	if s.Trigger != nil {
		line("trigger", "%s, %s", s.Trigger.What, moment(f, s.Trigger.Time))
	}
	for n, note := range s.Notes {
		line(label("notes", n), "%s", note)
	}
	content := fmt.Sprintf("%s, %s", term.Plural(i.Calls, "call"), term.Plural(i.Events, "event"))
	if i.Calls > 0 {
		content += fmt.Sprintf(", %.1f bytes per call", float64(i.Bytes)/float64(i.Calls))
	}
	line("content", "%s", content)
	line("lost", "%s", term.Plural(i.Lost, "event"))
	for _, l := range i.List {
		fmt.Fprintf(&b, "  block %6d at %12d: %8d bytes of %9d, %7d events, %7d calls, %13s s to %13s s\n", l.Seq, l.Offset, l.Stored, l.Raw,
			l.Events, l.Calls, seconds(l.First, i.First), seconds(l.Last, i.First))
	}
	return b.String()
}

func seconds(t, first uint64) string { return fmt.Sprintf("%.6f", float64(int64(t-first))/1e9) }

func boundOf(is bool, text string) string {
	if is {
		return text
	}
	return ""
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// label is what stands before the first of several lines.
func label(s string, n int) string {
	if n > 0 {
		return ""
	}
	return s
}

// rest is a command line without the name of its program.
func rest(args []string) []string {
	if len(args) == 0 {
		return nil
	}
	return args[1:]
}

func verifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify FILE",
		Short: "Read all of a recording and say what is wrong with it",
		Long: `Verify reads every block: checksums, contents, counts, and whether each block
continues where the one before it ends. Its exit status is 3 if anything is wrong.`,
		Example: "  sbxtrace recording verify server.sbx",
		Args:    oneFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := recording.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			c := replay.Verify(f)
			out := cmd.OutOrStdout()
			for _, w := range c.Wrong {
				fmt.Fprintf(out, "%s\n", term.Clean(w.Error()))
			}
			fmt.Fprintf(out, "%s read: %s, %s, %s lost\n", count(c.Blocks, "block"), term.Plural(c.Events, "event"),
				term.Plural(c.Calls, "call"), term.Count(c.Lost))
			if len(c.Wrong) > 0 {
				return errDamaged
			}
			return nil
		},
	}
}

// rewriting makes a command that writes a new recording of others.
func rewriting(cmd *cobra.Command, least, most int, write func(cmd *cobra.Command, files []*recording.File, store recording.Store) error) *cobra.Command {
	var path string
	cmd.Flags().StringVarP(&path, "output", "o", "", "the new recording's `file`")
	cmd.Args = func(_ *cobra.Command, args []string) error {
		if len(args) < least || len(args) > most {
			return usagef("wrong number of recordings: %d", len(args))
		}
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if path == "" {
			return usagef("-o says where the new recording goes")
		}
		var files []*recording.File
		for _, a := range args {
			f, err := recording.Open(a)
			if err != nil {
				return err
			}
			defer f.Close()
			files = append(files, f)
		}
		out, err := newRecording(path)
		if err != nil {
			return err
		}
		if err := write(cmd, files, recording.NewFileStore(out.File)); err != nil {
			os.Remove(out.Name())
			return err
		}
		return out.begin()
	}
	return cmd
}

func repairCommand() *cobra.Command {
	return rewriting(&cobra.Command{
		Use:   "repair FILE -o NEW",
		Short: "Save what is readable of a damaged recording",
		Long: `Repair writes a new recording of all blocks that can be read, in order and with an
index, and says what is lost.`,
		Example: "  sbxtrace recording repair server.sbx -o repaired.sbx",
	}, 1, 1, func(cmd *cobra.Command, files []*recording.File, store recording.Store) error {
		f := files[0]
		lost, err := recording.Repair(f, store)
		if err != nil {
			return err
		}
		noteDamage(&notes{w: cmd.ErrOrStderr()}, f)
		for _, e := range lost.Errs {
			fmt.Fprintf(cmd.ErrOrStderr(), "sbxtrace: %v\n", e)
		}
		all := len(f.Blocks) + len(f.Rows)
		outcome := "nothing in them lost"
		if lost.Blocks > 0 {
			outcome = term.Plural(lost.Events, "event") + " lost with the others"
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%d of %s saved, %s\n", all-lost.Blocks, count(all, "block"), outcome)
		return nil
	})
}

func mergeCommand() *cobra.Command {
	return rewriting(&cobra.Command{
		Use:   "merge FILE … -o NEW",
		Short: "Make one recording of several that were made side by side",
		Long: `Merge joins recordings of one machine by time: of several processes, or of
different functions of one, whose calls are nested again.`,
		Example: "  sbxtrace recording merge client.sbx server.sbx -o both.sbx",
	}, 2, 1000, func(_ *cobra.Command, files []*recording.File, store recording.Store) error {
		return replay.Merge(files, store)
	})
}

func cutCommand() *cobra.Command {
	var f replayFlags
	cmd := rewriting(&cobra.Command{
		Use:   "cut FILE [--from TIME] [--to TIME] -o NEW",
		Short: "Make a recording of a part of another",
		Long: `Cut keeps a part of the time, some functions or some threads. What was open at the
beginning of the part is open at the beginning of the new recording.`,
		Example: "  sbxtrace recording cut server.sbx --from 10s --to 12s -o slow.sbx",
	}, 1, 1, func(_ *cobra.Command, files []*recording.File, store recording.Store) error {
		o, err := f.span(files[0])
		if err != nil {
			return errors.Join(err, store.Close())
		}
		filter, err := f.filter()
		if err != nil {
			return errors.Join(err, store.Close())
		}
		return replay.Cut(files[0], store, o, filter)
	})
	f.addParts(cmd)
	return cmd
}

func anonymizeCommand() *cobra.Command {
	var o replay.AnonymizeOptions
	cmd := rewriting(&cobra.Command{
		Use:   "anonymize FILE -o NEW",
		Short: "Take out of a recording what tells whose it is",
		Long: `Anonymize replaces names of functions, files and threads by numbered ones, the
same for the same, and leaves out command lines, arguments, return values, return
addresses, build-ids, the machine and the date. Times, nesting, process numbers,
stack pointers and losses stay.`,
		Example: "  sbxtrace recording anonymize server.sbx -o shared.sbx",
	}, 1, 1, func(_ *cobra.Command, files []*recording.File, store recording.Store) error {
		return replay.Anonymize(files[0], store, o)
	})
	cmd.Flags().BoolVar(&o.KeepFunctions, "keep-functions", false, "keep the names of functions and of their files, without directories")
	return cmd
}
