package profiler

import (
	"errors"

	"github.com/sbxtrace/sbxtrace/loader"
	"github.com/sbxtrace/sbxtrace/symbolizer"
	"github.com/sbxtrace/sbxtrace/trace"
)

// pythonModule has the functions of Python programs.
const pythonModule = "[python]"

// python is the interpreter of a process.
type python struct {
	*symbolizer.Python
	module *module     // the file that it is in
	evals  []codeRange // of its loop, in the file
}

type codeRange struct{ start, end uint64 }

// openPython looks for CPython in what a process has mapped.
func (p *Profiler) openPython(proc *process) {
	if proc.python != nil || proc.noPython {
		return
	}
	for i := range proc.regions {
		r := &proc.regions[i]
		if r.module.bin == nil {
			continue
		}
		py, err := symbolizer.OpenPython(int(proc.pid), &r.Mapping, r.module.bin)
		if errors.Is(err, symbolizer.ErrPythonVersion) {
			p.note("%v: its Python functions are not seen", err)
			proc.noPython = true
			return
		}
		if py == nil || err != nil {
			continue
		}
		proc.python = &python{Python: py, module: r.module, evals: evalRanges(&py.Layout, r.module.bin)}
		return
	}
}

// evalRanges finds the interpreter's loop.
func evalRanges(l *symbolizer.PythonLayout, bin *symbolizer.Binary) []codeRange {
	var ranges []codeRange
	funcs, _ := bin.Functions() // as far as they can be read
	for i := range funcs {
		if f := &funcs[i]; l.IsEval(f.Symbol) {
			ranges = append(ranges, codeRange{f.Addr, f.Addr + f.Size})
		}
	}
	return ranges
}

// layout is what the kernel side needs to know; nil for a process without Python.
func (py *python) layout() *loader.PythonLayout {
	if py == nil {
		return nil
	}
	l := &py.Layout
	return &loader.PythonLayout{
		Runtime: py.Runtime, Minor: uint32(l.Minor),
		Interpreters: l.Interpreters, NextInterp: l.NextInterp, Threads: l.Threads, NextThread: l.NextThread, NativeID: l.NativeID,
		ThreadFrame: l.ThreadFrame, CFrame: l.CFrame, CFrameFrame: l.CFrameFrame,
		FrameCode: l.FrameCode, FramePrevious: l.FramePrevious, FrameInstr: l.FrameInstr, FrameOwner: l.FrameOwner,
	}
}

// isEval reports whether a location is in the interpreter's loop.
func (py *python) isEval(l *location) bool {
	if l.module != py.module {
		return false
	}
	for _, r := range py.evals {
		if l.addr >= r.start && l.addr < r.end {
			return true
		}
	}
	return false
}

// interleave puts Python frames in the place of those of the interpreter's loop.
// native are the locations of the user stack, innermost first.
func (p *Profiler) interleave(proc *process, native []uint32, e *trace.Event) []uint32 {
	if len(e.Python) == 0 || proc == nil {
		return native
	}
	p.openPython(proc) // of a child that was forked just now
	py := proc.python
	if py == nil {
		return native
	}
	var evals []int
	for i, id := range native {
		if py.isEval(&p.samples.locations[id]) {
			evals = append(evals, i)
		}
	}
	runs := pythonRuns(py.Layout.Frames(e.Python))
	placed, above, below := place(len(evals), len(runs), e.Cut != trace.CutNone || len(e.Python) >= maxPythonWords)
	out := make([]uint32, 0, len(native)+len(e.Python)/2)
	next := 0
	for i, id := range native {
		if i == 1 || len(native) == 1 {
			// Frames whose part of the native stack was not recognized.
			for _, run := range runs[:above] {
				out = p.appendPython(out, py, run)
			}
		}
		if next == len(evals) || evals[next] != i {
			out = append(out, id)
			continue
		}
		run := placed[next]
		next++
		before := len(out)
		if run >= 0 {
			out = p.appendPython(out, py, runs[run])
		}
		if len(out) == before {
			out = append(out, id) // entered, but without a frame yet
		}
	}
	for _, run := range runs[len(runs)-below:] {
		out = p.appendPython(out, py, run)
	}
	return out
}

// maxPythonWords is MAX_SAMPLE_PYTHON of bpf/events.h: stacks that long are cut.
const maxPythonWords = 512

// pythonRuns splits frames into those that one activation of the interpreter's
// loop executes, innermost first.
func pythonRuns(frames []symbolizer.PythonFrame) [][]symbolizer.PythonFrame {
	var runs [][]symbolizer.PythonFrame
	start := 0
	for i := range frames {
		if frames[i].Entry {
			runs = append(runs, frames[start:i+1])
			start = i + 1
		}
	}
	if start < len(frames) {
		runs = append(runs, frames[start:])
	}
	return runs
}

// place tells for each activation on the native stack, innermost first, which
// run of frames it has, -1 for none. The first above runs have no activation,
// and neither have the last below ones. The numbers of both differ by one where
// the loop is just being entered or left. They are compared from the outermost
// on, or, where one of them is cut there, from the innermost.
func place(evals, runs int, cut bool) (placed []int, above, below int) {
	placed = make([]int, evals)
	shift := 0
	if more := max(runs-evals, 0); cut {
		below = more
	} else {
		shift, above = runs-evals, more
	}
	for i := range placed {
		placed[i] = i + shift
		if placed[i] < 0 || placed[i] >= runs {
			placed[i] = -1
		}
	}
	return placed, above, below
}

// appendPython appends the locations of Python frames.
func (p *Profiler) appendPython(out []uint32, py *python, frames []symbolizer.PythonFrame) []uint32 {
	for _, f := range frames {
		if f.Code == 0 {
			continue
		}
		fn := symbolizer.JITFunction{Name: "(function that is gone)"}
		if frame, err := py.Resolve(f); err == nil {
			fn = symbolizer.JITFunction{Name: symbolizer.PythonName(frame), File: frame.File, Line: frame.Line}
		}
		out = append(out, p.samples.location(location{module: p.named(pythonModule), jit: fn}))
	}
	return out
}
