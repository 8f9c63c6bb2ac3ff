package symbolizer

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
)

// PythonLayout says where CPython keeps its frames, as offsets in bytes on 64-bit
// machines. The structures are those of Include/internal and Include/cpython.
type PythonLayout struct {
	Minor int // 11 for CPython 3.11

	Interpreters uint32 // interpreters.head in _PyRuntime
	NextInterp   uint32 // next in PyInterpreterState
	Threads      uint32 // threads.head in PyInterpreterState
	NextThread   uint32 // next in PyThreadState
	NativeID     uint32 // native_thread_id in PyThreadState: gettid() as the process sees it

	// ThreadFrame is where PyThreadState has the innermost frame. With CFrame it
	// has a _PyCFrame there (3.11, 3.12), which has the frame at CFrameFrame.
	ThreadFrame uint32
	CFrame      bool
	CFrameFrame uint32

	FrameCode     uint32 // f_code or f_executable in _PyInterpreterFrame
	FramePrevious uint32
	FrameInstr    uint32 // prev_instr or instr_ptr
	FrameOwner    uint32 // is_entry in 3.11, owner later: a byte

	CodeFirstLine uint32 // co_firstlineno in PyCodeObject
	CodeFilename  uint32
	CodeQualName  uint32
	CodeLineTable uint32
	CodeInstr     uint32 // co_code_adaptive: the first instruction

	ASCIIData   uint32 // the characters of an ASCII str
	CompactData uint32 // the characters of another str
	BytesSize   uint32 // ob_size of bytes
	BytesData   uint32 // ob_sval of bytes
}

// Source: debug information of 3.11.7 and 3.12.1.
var pythonLayouts = map[int]PythonLayout{
	11: {
		Minor: 11, Interpreters: 40, NextInterp: 0, Threads: 16, NextThread: 8, NativeID: 160,
		ThreadFrame: 56, CFrame: true, CFrameFrame: 8,
		FrameCode: 32, FramePrevious: 48, FrameInstr: 56, FrameOwner: 68,
		CodeFirstLine: 72, CodeFilename: 112, CodeQualName: 128, CodeLineTable: 136, CodeInstr: 184,
		ASCIIData: 48, CompactData: 72, BytesSize: 16, BytesData: 32,
	},
	12: {
		Minor: 12, Interpreters: 40, NextInterp: 0, Threads: 72, NextThread: 8, NativeID: 144,
		ThreadFrame: 56, CFrame: true, CFrameFrame: 0,
		FrameCode: 0, FramePrevious: 8, FrameInstr: 56, FrameOwner: 70,
		CodeFirstLine: 68, CodeFilename: 112, CodeQualName: 128, CodeLineTable: 136, CodeInstr: 192,
		ASCIIData: 40, CompactData: 56, BytesSize: 16, BytesData: 32,
	},
}

// pythonCookie begins _Py_DebugOffsets, which begins _PyRuntime from 3.13 on.
const pythonCookie = "xdebugpy"

// pythonOffsetGroups is the order of _Py_DebugOffsets in 3.13: groups of 8-byte
// numbers, each group beginning with the structure's size. 3.14 has more numbers
// in some groups, and one group more.
var pythonOffsetGroups = []struct {
	words   int // in 3.13
	words14 int // in 3.14
	read    func(l *PythonLayout, w []uint64)
}{
	{3, 3, func(l *PythonLayout, w []uint64) { l.Interpreters = uint32(w[2]) }}, // _PyRuntimeState: size, finalizing, interpreters.head
	{13, 14, func(l *PythonLayout, w []uint64) { l.NextInterp, l.Threads = uint32(w[2]), uint32(w[3]) }},
	{9, 9, func(l *PythonLayout, w []uint64) {
		l.NextThread, l.ThreadFrame, l.NativeID = uint32(w[2]), uint32(w[4]), uint32(w[6])
	}},
	{6, 7, func(l *PythonLayout, w []uint64) {
		l.FramePrevious, l.FrameCode, l.FrameInstr, l.FrameOwner = uint32(w[1]), uint32(w[2]), uint32(w[3]), uint32(w[5])
	}},
	{10, 10, func(l *PythonLayout, w []uint64) {
		l.CodeFilename, l.CodeQualName, l.CodeLineTable = uint32(w[1]), uint32(w[3]), uint32(w[4])
		l.CodeFirstLine, l.CodeInstr = uint32(w[5]), uint32(w[9])
	}},
	{2, 2, nil}, // PyObject
	{4, 4, nil}, // PyTypeObject
	{3, 3, nil}, // tuple
	{3, 3, nil}, // list
	{0, 4, nil}, // set
	{3, 3, nil}, // dict
	{2, 2, nil}, // float
	{3, 3, nil}, // int
	{3, 3, func(l *PythonLayout, w []uint64) { l.BytesSize, l.BytesData = uint32(w[1]), uint32(w[2]) }},
	{4, 4, func(l *PythonLayout, w []uint64) {
		l.ASCIIData = uint32(w[3])
		l.CompactData = l.ASCIIData + 16 // utf8_length and utf8 follow
	}},
}

// maxPythonOffset bounds an offset that an interpreter may publish. The largest
// structure, PyInterpreterState, has some 400 KiB.
const maxPythonOffset = 16 << 20

// pythonOffsetBytes is how much of _PyRuntime publishes its layout, for 3.14.
const pythonOffsetBytes = 1024

// parsePythonOffsets reads what an interpreter from 3.13 on publishes at the
// start of _PyRuntime.
func parsePythonOffsets(data []byte) (PythonLayout, error) {
	if len(data) < 24 || string(data[:8]) != pythonCookie {
		return PythonLayout{}, fmt.Errorf("CPython's debug offsets: %w: no cookie", ErrMalformed)
	}
	version := binary.NativeEndian.Uint64(data[8:])
	minor := int(version >> 16 & 0xff)
	if version>>24 != 3 || minor < 13 || minor > 14 {
		return PythonLayout{}, fmt.Errorf("CPython %d.%d: %w", version>>24, minor, ErrPythonVersion)
	}
	l := PythonLayout{Minor: minor}
	at := 24 // cookie, version, free_threaded
	for _, g := range pythonOffsetGroups {
		n := g.words
		if minor >= 14 {
			n = g.words14
		}
		if at+8*n > len(data) {
			return PythonLayout{}, fmt.Errorf("CPython's debug offsets: %w: cut", ErrMalformed)
		}
		words := make([]uint64, n)
		for i := range words {
			words[i] = binary.NativeEndian.Uint64(data[at+8*i:])
			if g.read != nil && i > 0 && words[i] > maxPythonOffset {
				return PythonLayout{}, fmt.Errorf("CPython's debug offsets: %w: %#x", ErrMalformed, words[i])
			}
		}
		if g.read != nil {
			g.read(&l, words)
		}
		at += 8 * n
	}
	return l, nil
}

// IsEval reports whether a native function is the interpreter's loop: its frame
// on the native stack stands for the Python frames up to an entry, see
// PythonFrame.
func (l *PythonLayout) IsEval(function string) bool {
	name, _, _ := strings.Cut(function, ".") // .cold, .part.0, .constprop.0
	return name == "_PyEval_EvalFrameDefault" || strings.HasPrefix(name, "_TAIL_CALL_")
}

// ownedByInterpreter is the least _PyInterpreterFrame.owner from 3.12 on of
// frames that are not Python's but mark where the interpreter was entered.
const ownedByInterpreter = 3

// pythonMinor is 11 for the version number of CPython 3.11 (PY_VERSION_HEX).
func pythonMinor(hex uint64) (int, bool) {
	return int(hex >> 16 & 0xff), hex>>24 == 3
}

// pythonMinorOfName is 11 for "python3.11" and "libpython3.11.so.1.0".
func pythonMinorOfName(name string) (int, bool) {
	_, rest, ok := strings.Cut(name, "python3.")
	if !ok {
		return 0, false
	}
	digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
	n, err := strconv.Atoi(rest[:digits])
	return n, err == nil
}
