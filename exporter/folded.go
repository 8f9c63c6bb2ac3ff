package exporter

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/google/pprof/profile"

	"github.com/sbxtrace/sbxtrace/internal/term"
)

// kernelMark ends the names of kernel frames in folded stacks, as Brendan
// Gregg's stackcollapse-perf.pl has them and his flamegraph.pl colours them.
const kernelMark = "_[k]"

// foldedSeparators may not stand in the names of folded stacks.
var foldedSeparators = strings.NewReplacer(";", ":", "\n", " ", "\r", " ")

// writeFolded writes a line per stack in the order of the names: the frames from
// the root, and the value. A comparison has the base's value before the other,
// as difffolded.pl has it.
func writeFolded(w io.Writer, p *profile.Profile, opt Options) error {
	typ := countType(p)
	if opt.SampleType != "" {
		var err error
		if typ, err = sampleType(p, opt.SampleType); err != nil {
			return err
		}
	}
	t := newTree(p, opt.ByThread)
	names := make([]string, len(t.frames))
	for i := range t.frames {
		f := &t.frames[i]
		names[i] = foldedSeparators.Replace(term.Clean(f.Name))
		if f.Module == kernelModule {
			names[i] += kernelMark
		}
	}
	out := bufio.NewWriterSize(w, 64<<10)
	// Names that were made equal share a line: writing goes by the text.
	var lines []foldedLine
	n := len(t.types)
	var path []byte
	for at := range t.nodes {
		l := foldedLine{now: t.self[at*n+typ]}
		if t.base != nil {
			l.before = t.base[at*n+typ]
		}
		if l.now == 0 && l.before == 0 {
			continue
		}
		path = t.appendPath(path[:0], int32(at), names)
		l.stack = string(path)
		lines = append(lines, l)
	}
	slices.SortFunc(lines, func(a, b foldedLine) int { return strings.Compare(a.stack, b.stack) })
	for i := range lines {
		l := &lines[i]
		if i+1 < len(lines) && lines[i+1].stack == l.stack {
			lines[i+1].now += l.now
			lines[i+1].before += l.before
			continue
		}
		b := append(out.AvailableBuffer(), l.stack...)
		b = append(b, ' ')
		if t.base != nil {
			b = append(strconv.AppendInt(b, l.before, 10), ' ')
		}
		b = append(strconv.AppendInt(b, l.now, 10), '\n')
		if _, err := out.Write(b); err != nil {
			return fmt.Errorf("write folded stacks: %w", err)
		}
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write folded stacks: %w", err)
	}
	return nil
}

type foldedLine struct {
	stack       string
	now, before int64
}

// appendPath appends the names from the root to a node; a stack without frames
// is called so, since a line has to have one.
func (t *tree) appendPath(dst []byte, at int32, names []string) []byte {
	if at == 0 {
		return append(dst, "[no frames]"...)
	}
	var up []int32
	for ; at > 0; at = t.nodes[at].parent {
		up = append(up, t.nodes[at].frame)
	}
	for i, frame := range slices.Backward(up) {
		dst = append(dst, names[frame]...)
		if i > 0 {
			dst = append(dst, ';')
		}
	}
	return dst
}

// ErrFolded is matched by errors about lines that are no folded stacks.
var ErrFolded = errors.New("not a folded stack")

// maxLine bounds one line of folded stacks, in bytes.
const maxLine = 16 << 20

// readFolded makes a profile of folded stacks. Its one type of value is
// samples/count.
func readFolded(data []byte, limit int64) (*profile.Profile, error) {
	f := folder{
		p: &profile.Profile{
			SampleType: []*profile.ValueType{{Type: "samples", Unit: "count"}},
			PeriodType: &profile.ValueType{},
		},
		frames: make(map[string]*profile.Location), samples: make(map[string]*profile.Sample), left: limit,
	}
	for n := 1; len(data) > 0; n++ {
		var line []byte
		line, data, _ = bytes.Cut(data, []byte("\n"))
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		if err := f.line(string(line)); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	if len(f.p.Sample) == 0 {
		return nil, fmt.Errorf("%w: no lines", ErrFolded)
	}
	if err := f.p.CheckValid(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFolded, err)
	}
	return f.p, nil
}

// folder collects folded stacks.
type folder struct {
	p       *profile.Profile
	frames  map[string]*profile.Location
	samples map[string]*profile.Sample
	kernel  *profile.Mapping
	left    int64 // memory that may still be used, in bytes
}

func (f *folder) line(line string) error {
	if len(line) > maxLine {
		return fmt.Errorf("%w: it has %s bytes", ErrFolded, term.Count(uint64(len(line))))
	}
	// Some tools write fractions; what counts is the number after the last
	// space.
	end := strings.LastIndexByte(line, ' ')
	if end < 1 {
		return noNumber(line)
	}
	value, err := strconv.ParseInt(line[end+1:], 10, 64)
	if err != nil {
		fraction, err := strconv.ParseFloat(line[end+1:], 64)
		if err != nil || fraction != fraction || fraction > 1<<62 || fraction < -(1<<62) {
			return noNumber(line)
		}
		value = int64(fraction + 0.5)
	}
	stack := strings.TrimSpace(line[:end])
	if s := f.samples[stack]; s != nil {
		s.Value[0] += value
		return nil
	}
	names := strings.Split(stack, ";")
	if f.left -= int64(len(stack)) + 24*int64(len(names)) + 256; f.left < 0 {
		return ErrTooLarge
	}
	s := &profile.Sample{Value: []int64{value}}
	for _, name := range slices.Backward(names) {
		l, err := f.location(name)
		if err != nil {
			return err
		}
		s.Location = append(s.Location, l)
	}
	f.samples[stack] = s
	f.p.Sample = append(f.p.Sample, s)
	return nil
}

func noNumber(line string) error {
	return fmt.Errorf("%w: %q does not end with a space and a number", ErrFolded, term.Elide(term.Clean(line), 60))
}

// location returns the location that stands for a name.
func (f *folder) location(name string) (*profile.Location, error) {
	if l := f.frames[name]; l != nil {
		return l, nil
	}
	if f.left -= int64(len(name)) + 512; f.left < 0 {
		return nil, ErrTooLarge
	}
	fn := &profile.Function{ID: uint64(len(f.p.Function)) + 1}
	l := &profile.Location{ID: fn.ID}
	plain, inKernel := strings.CutSuffix(name, kernelMark)
	if inKernel {
		if f.kernel == nil {
			f.kernel = &profile.Mapping{ID: 1, File: "[kernel.kallsyms]", HasFunctions: true}
			f.p.Mapping = append(f.p.Mapping, f.kernel)
		}
		l.Mapping = f.kernel
	}
	fn.Name = plain
	fn.SystemName = plain
	l.Line = []profile.Line{{Function: fn}}
	f.p.Function = append(f.p.Function, fn)
	f.p.Location = append(f.p.Location, l)
	f.frames[name] = l
	return l, nil
}
