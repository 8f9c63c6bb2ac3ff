package symbolizer

import (
	"bytes"
	"io"
	"strconv"
	"strings"
)

// maxPerfMapLine bounds a line of a perf map; longer ones are skipped.
const maxPerfMapLine = 64 << 10

// readPerfMap reads lines "start size name" (numbers in hex, with or without 0x)
// of a perf map from offset from on and returns the offset after the last whole
// line: what follows is still being written. Lines of another form are skipped:
// runtimes write some, and one of them must not cost the names of the others.
func readPerfMap(r io.ReaderAt, from, size int64, code *jitCode) (next int64, err error) {
	buf := make([]byte, maxPerfMapLine)
	skipping := false // the rest of a line that is too long
	for next = from; next < size; {
		n, err := r.ReadAt(buf[:min(int64(len(buf)), size-next)], next)
		if n == 0 {
			if err == io.EOF {
				err = nil
			}
			return next, err
		}
		chunk := buf[:n]
		last := bytes.LastIndexByte(chunk, '\n')
		if last < 0 {
			if n < len(buf) {
				return next, nil
			}
			skipping = true
			next += int64(n)
			continue
		}
		for line := range bytes.Lines(chunk[:last+1]) {
			if skipping {
				skipping = false
				continue
			}
			if start, size, name, ok := parsePerfMapLine(line[:len(line)-1]); ok {
				code.add(start, size, string(name), nil)
			}
		}
		next += int64(last) + 1
	}
	return next, nil
}

func parsePerfMapLine(line []byte) (start, size uint64, name []byte, ok bool) {
	first, rest, _ := bytes.Cut(line, []byte(" "))
	second, name, _ := bytes.Cut(rest, []byte(" "))
	start, ok = parseHex(first)
	size, ok2 := parseHex(second)
	name = bytes.TrimSpace(name)
	return start, size, name, ok && ok2 && len(name) > 0
}

func parseHex(b []byte) (uint64, bool) {
	b = bytes.TrimPrefix(b, []byte("0x"))
	n, err := strconv.ParseUint(string(b), 16, 64)
	return n, err == nil
}

// JITFunction is a function that a runtime has compiled while it ran.
type JITFunction struct {
	Name string // as a person reads it
	Raw  string // as the runtime wrote it
	File string // source file; empty if the runtime did not say
	Line int    // of the definition, or of the instruction where the runtime wrote that; 0 if unknown
}

// v8Kinds are the tags before the names of V8's code (LogEventListener::CodeTag
// and, for wasm and the like, the loggers' own), with those of older releases.
var v8Kinds = []string{"JS:", "LazyCompile:", "Function:", "Eval:", "Script:"}

// jitFunction makes a name readable: what a runtime writes into its perf map or
// jitdump beside the function's name is its own code tags, and where the
// function stands in the source.
func jitFunction(raw string) JITFunction {
	f := JITFunction{Name: raw, Raw: raw}
	if name, ok := strings.CutPrefix(raw, "py::"); ok {
		// CPython 3.12 with -X perf: py::qualified.name:file
		if i := strings.LastIndexByte(name, ':'); i > 0 {
			f.Name, f.File = name[:i], name[i+1:]
		}
		return f
	}
	for _, kind := range v8Kinds {
		if name, ok := strings.CutPrefix(raw, kind); ok {
			return v8Function(raw, name)
		}
	}
	// BEAM: $module:function/arity, as of OTP 25 with a mark in the perf map, and
	// the part of a function before its first instruction named separately.
	if name, ok := strings.CutPrefix(raw, "$"); ok && strings.Contains(name, ":") {
		f.Name = name
	}
	f.Name = strings.TrimSuffix(f.Name, "-CodeInfoPrologue")
	return f
}

// v8Function reads V8's "*name file:line:column", where the mark tells the
// compiler: ~ interpreted, ^ baseline, + and others mid-tier, * optimised.
func v8Function(raw, name string) JITFunction {
	name = strings.TrimLeft(name, "~^*+'-")
	f := JITFunction{Raw: raw}
	at := strings.IndexByte(name, ' ')
	if at < 0 {
		f.Name = name
		if name == "" {
			f.Name = raw
		}
		return f
	}
	f.Name = name[:at]
	place := strings.TrimSpace(name[at+1:])
	// The file's name may have colons: "node:internal/main:1:1".
	f.File = place
	if rest, number, ok := cutNumber(place); ok {
		f.File, f.Line = rest, number
		if file, line, ok := cutNumber(rest); ok {
			f.File, f.Line = file, line
		}
	}
	f.File = strings.TrimPrefix(f.File, "file://")
	if f.Name == "" {
		f.Name = "(anonymous)"
	}
	return f
}

// cutNumber splits "text:123".
func cutNumber(s string) (before string, number int, ok bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return s, 0, false
	}
	n, err := strconv.Atoi(s[i+1:])
	if err != nil || n < 0 {
		return s, 0, false
	}
	return s[:i], n, true
}
