package symbolizer

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// ErrNoPython: the process has no CPython, or none that has started.
// ErrPythonVersion: its frames are laid out in a way that is not known here.
var (
	ErrNoPython      = errors.New("no CPython")
	ErrPythonVersion = errors.New("version of CPython not known")
)

// Python reads the frames of CPython out of a process's memory, without any help
// of the process. It knows CPython 3.11 to 3.14. All methods are safe for
// concurrent use.
type Python struct {
	Layout   PythonLayout
	Runtime  uint64 // address of _PyRuntime
	CodeType uint64 // address of PyCode_Type, by which code objects are known; 0 if unknown

	mem     memory
	closer  io.Closer
	recheck time.Duration // for how long a code object is taken for what it was

	mu    sync.Mutex
	codes map[uint64]*pythonCode
	bytes int // of all line tables
}

// NewPython returns a reader of the interpreter whose _PyRuntime is at an address
// of the memory behind r.
func NewPython(r io.ReaderAt, layout PythonLayout, runtime, codeType uint64) *Python {
	return &Python{Layout: layout, Runtime: runtime, CodeType: codeType, mem: memory{r}, recheck: 200 * time.Millisecond, codes: make(map[uint64]*pythonCode)}
}

// FindPython looks for CPython in a process. It fails with ErrNoPython or
// ErrPythonVersion, with ErrNoProcess, or with the operating system's error.
func FindPython(pid int) (*Python, error) {
	modules, err := Modules(pid)
	if err != nil {
		return nil, err
	}
	for i := range modules {
		m := &modules[i]
		path, err := ModulePath(pid, m.Mappings[0])
		if err != nil {
			continue
		}
		b, err := Options{Root: RootPath(pid), TargetPath: m.Path}.OpenCached(path)
		if err != nil {
			continue
		}
		p, err := OpenPython(pid, &m.Mappings[0], b)
		b.Close()
		if p != nil || err != nil {
			return p, err
		}
	}
	return nil, fmt.Errorf("pid %d: %w", pid, ErrNoPython)
}

// OpenPython opens the interpreter that a file mapped into a process has, as
// FindPython does; m is any of the file's executable mappings. It returns nil
// without error if the file has none.
func OpenPython(pid int, m *Mapping, b *Binary) (*Python, error) {
	runtime, ok := b.pythonRuntime()
	if !ok {
		return nil, nil
	}
	addr, ok := b.OffsetToAddr(m.Offset)
	if !ok {
		return nil, nil
	}
	bias := m.Start - addr
	f, err := OpenMemory(pid)
	if err != nil {
		return nil, err
	}
	layout, err := b.pythonLayout(f, runtime+bias, filepath.Base(m.Path))
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("pid %d: %s: %w", pid, m.Path, err)
	}
	p := NewPython(f, layout, runtime+bias, 0)
	p.closer = f
	if t, ok := b.dataSymbol("PyCode_Type"); ok {
		p.CodeType = t + bias
	}
	return p, nil
}

// pythonRuntime is the address in the file of _PyRuntime. From 3.11 on it has a
// section of its own; an interpreter without section headers exports it.
func (b *Binary) pythonRuntime() (uint64, bool) {
	if s := b.section(".PyRuntime"); s != nil && s.Addr != 0 {
		return s.Addr, true
	}
	if len(b.file.Sections) > 0 && !strings.Contains(b.moduleName(), "python") {
		return 0, false
	}
	return b.dataSymbol("_PyRuntime")
}

// dataSymbol returns the address of an exported or local variable.
func (b *Binary) dataSymbol(name string) (uint64, bool) {
	for _, read := range []func() ([]elf.Symbol, error){b.file.DynamicSymbols, b.file.Symbols} {
		syms, _ := read()
		for i := range syms {
			if syms[i].Name == name && syms[i].Section != elf.SHN_UNDEF && elf.ST_TYPE(syms[i].Info) == elf.STT_OBJECT {
				return syms[i].Value, true
			}
		}
	}
	return 0, false
}

// pythonLayout finds out the version: by what the interpreter publishes, by the
// constant Py_Version, by the file's name.
func (b *Binary) pythonLayout(r io.ReaderAt, runtime uint64, name string) (PythonLayout, error) {
	m := memory{r}
	var head [pythonOffsetBytes]byte
	if m.read(head[:], runtime) == nil && string(head[:8]) == pythonCookie {
		return parsePythonOffsets(head[:])
	}
	minor, ok := 0, false
	if addr, found := b.dataSymbol("Py_Version"); found {
		var version [8]byte
		if b.readAddr(version[:], addr) == nil {
			minor, ok = pythonMinor(b.byteOrder().Uint64(version[:]))
		}
	}
	if !ok {
		minor, ok = pythonMinorOfName(name)
	}
	layout, known := pythonLayouts[minor]
	if !ok || !known {
		if !ok {
			return PythonLayout{}, ErrPythonVersion
		}
		return PythonLayout{}, fmt.Errorf("CPython 3.%d: %w", minor, ErrPythonVersion)
	}
	return layout, nil
}

// Close gives the process's memory back.
func (p *Python) Close() error {
	if p.closer == nil {
		return nil
	}
	return p.closer.Close()
}

// PythonFrame is a frame of Python code.
type PythonFrame struct {
	Code  uint64 // address of the code object; 0 for a frame that only marks an entry
	Instr uint64 // address of the instruction
	// Entry: the interpreter's loop was entered for this frame. Frames above it
	// belong to another frame of the loop on the native stack.
	Entry bool
}

// Limits on what is followed in a process's memory.
const (
	maxPythonInterps = 256
	maxPythonThreads = 1 << 16
	maxPythonFrames  = 4096
)

// Thread returns the address of the PyThreadState of a thread, by its id as the
// process sees it. It fails with ErrNoPython if the thread runs no Python.
func (p *Python) Thread(tid int) (uint64, error) {
	l := &p.Layout
	interp, err := p.mem.uint64(p.Runtime + uint64(l.Interpreters))
	for n := 0; err == nil && interp != 0 && n < maxPythonInterps; n++ {
		var thread uint64
		if thread, err = p.threadOf(interp, uint64(tid)); thread != 0 || err != nil {
			return thread, err
		}
		interp, err = p.mem.uint64(interp + uint64(l.NextInterp))
	}
	if err != nil {
		return 0, fmt.Errorf("Python interpreters: %w", err)
	}
	return 0, fmt.Errorf("thread %d: %w", tid, ErrNoPython)
}

// threadOf looks through the threads of one interpreter; 0 if the one wanted is
// not among them.
func (p *Python) threadOf(interp, tid uint64) (uint64, error) {
	l := &p.Layout
	thread, err := p.mem.uint64(interp + uint64(l.Threads))
	for n := 0; err == nil && thread != 0 && n < maxPythonThreads; n++ {
		var id uint64
		if id, err = p.mem.uint64(thread + uint64(l.NativeID)); err != nil {
			break
		}
		if id == tid {
			return thread, nil
		}
		thread, err = p.mem.uint64(thread + uint64(l.NextThread))
	}
	if err != nil {
		return 0, fmt.Errorf("Python threads: %w", err)
	}
	return 0, nil
}

// Stack returns the Python frames of a thread, innermost first. The thread goes
// on meanwhile: what is returned may be cut short by an error, or be mixed from
// two moments.
func (p *Python) Stack(tid int) ([]PythonFrame, error) {
	l := &p.Layout
	thread, err := p.Thread(tid)
	if err != nil {
		return nil, err
	}
	frame, err := p.mem.uint64(thread + uint64(l.ThreadFrame))
	if err == nil && l.CFrame && frame != 0 {
		frame, err = p.mem.uint64(frame + uint64(l.CFrameFrame))
	}
	var frames []PythonFrame
	for err == nil && frame != 0 && len(frames) < maxPythonFrames {
		var f PythonFrame
		f, frame, err = p.frame(frame)
		if err == nil {
			frames = append(frames, f)
		}
	}
	if err != nil {
		return frames, fmt.Errorf("Python frames: %w", err)
	}
	return frames, nil
}

func (p *Python) frame(addr uint64) (f PythonFrame, previous uint64, err error) {
	l := &p.Layout
	size := max(l.FrameCode, l.FramePrevious, l.FrameInstr, l.FrameOwner) + 8
	buf := make([]byte, size)
	if err := p.mem.read(buf, addr); err != nil {
		return f, 0, err
	}
	word := func(off uint32) uint64 { return nativeWord(buf[off:]) }
	return l.pythonFrame(word(l.FrameCode), word(l.FrameInstr), buf[l.FrameOwner]), word(l.FramePrevious), nil
}

// pythonFrame makes a frame of its raw fields.
func (l *PythonLayout) pythonFrame(code, instr uint64, owner byte) PythonFrame {
	f := PythonFrame{Code: code, Instr: instr}
	if l.Minor >= 14 {
		f.Code &^= 7 // a reference with marks in its lower bits
	}
	if l.Minor == 11 {
		f.Entry = owner != 0
	} else if owner >= ownedByInterpreter {
		f = PythonFrame{Entry: true}
	}
	return f
}

// pythonCode is what is kept of a code object.
type pythonCode struct {
	key     pythonCodeKey
	checked time.Time
	name    string
	file    string
	line    int // of the definition
	table   []byte
	lines   map[int64]int // of code units that were asked for
}

func (c *pythonCode) cachedLine(unit int64) int {
	line, ok := c.lines[unit]
	if !ok {
		const maxLines = 4096
		if line = c.lineAt(unit); c.lines == nil || len(c.lines) >= maxLines {
			c.lines = make(map[int64]int)
		}
		c.lines[unit] = line
	}
	return line
}

// pythonCodeKey is by what a code object at an address is known to be still the
// same: memory is used again.
type pythonCodeKey struct {
	kind, file, name, table uint64
	line                    uint32
}

// Limits on code objects.
const (
	maxPythonCodes      = 1 << 16
	maxPythonString     = 4096
	maxPythonLineTable  = 4 << 20
	maxPythonLineTables = 64 << 20 // of all code objects
)

// Frames makes frames of the words that the kernel side sends, two for each: the
// address of the code object with bit 0 set for an entry, and the instruction.
func (l *PythonLayout) Frames(words []uint64) []PythonFrame {
	frames := make([]PythonFrame, len(words)/2)
	for i := range frames {
		frames[i] = PythonFrame{Code: words[2*i] &^ 7, Instr: words[2*i+1], Entry: words[2*i]&1 != 0}
	}
	return frames
}

// Resolve names a frame: the function's qualified name ("Worker.run"), the file
// it is defined in, and the line at which it is. It fails if there is no code
// object at the address any more.
func (p *Python) Resolve(f PythonFrame) (Frame, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	code, err := p.code(f.Code)
	if err != nil {
		return Frame{}, fmt.Errorf("Python code object at %#x: %w", f.Code, err)
	}
	return Frame{Function: code.name, File: code.file, Line: code.cachedLine(p.Layout.instruction(f))}, nil
}

// instruction is the number of the code unit that a frame executes, less than 0
// before the first one.
func (l *PythonLayout) instruction(f PythonFrame) int64 {
	return (int64(f.Instr) - int64(f.Code) - int64(l.CodeInstr)) / 2
}

func (p *Python) code(addr uint64) (*pythonCode, error) {
	known := p.codes[addr]
	if known != nil && time.Since(known.checked) < p.recheck {
		return known, nil
	}
	key, err := p.codeKey(addr)
	if err != nil {
		return nil, err
	}
	if known != nil && known.key == key {
		known.checked = time.Now()
		return known, nil
	}
	code := &pythonCode{key: key, checked: time.Now(), line: int(key.line)}
	if code.name, err = p.str(key.name); err != nil {
		return nil, fmt.Errorf("name: %w", err)
	}
	if code.file, err = p.str(key.file); err != nil {
		return nil, fmt.Errorf("file: %w", err)
	}
	if code.table, err = p.byteString(key.table); err != nil {
		return nil, fmt.Errorf("line table: %w", err)
	}
	if len(p.codes) >= maxPythonCodes || p.bytes+len(code.table) > maxPythonLineTables {
		p.codes, p.bytes = make(map[uint64]*pythonCode), 0
	}
	p.codes[addr] = code
	p.bytes += len(code.table)
	return code, nil
}

func (p *Python) codeKey(addr uint64) (pythonCodeKey, error) {
	l := &p.Layout
	buf := make([]byte, max(l.CodeFirstLine, l.CodeFilename, l.CodeQualName, l.CodeLineTable)+8)
	if err := p.mem.read(buf, addr); err != nil {
		return pythonCodeKey{}, err
	}
	const obType = 8 // PyObject: ob_refcnt, ob_type
	k := pythonCodeKey{
		kind: nativeWord(buf[obType:]), file: nativeWord(buf[l.CodeFilename:]), name: nativeWord(buf[l.CodeQualName:]),
		table: nativeWord(buf[l.CodeLineTable:]), line: uint32(nativeWord(buf[l.CodeFirstLine:])),
	}
	// Builds without a GIL have a larger header, and their types are known by
	// nothing here.
	if p.CodeType != 0 && k.kind != p.CodeType && l.ASCIIData <= pythonLayouts[11].ASCIIData {
		return k, fmt.Errorf("%w: not a code object", ErrMalformed)
	}
	return k, nil
}

// str reads a Python string, cut at 4,096 characters.
func (p *Python) str(addr uint64) (string, error) {
	l := &p.Layout
	head := make([]byte, 36) // PyASCIIObject: header, length, hash, state
	if err := p.mem.read(head, addr); err != nil {
		return "", err
	}
	base := uint32(0)
	if l.ASCIIData > pythonLayouts[11].ASCIIData {
		base = 16 // of a build without a GIL
		head = make([]byte, 52)
		if err := p.mem.read(head, addr); err != nil {
			return "", err
		}
	}
	length := nativeWord(head[16+base:])
	kind, ascii, ok := l.strKind(binary.NativeEndian.Uint32(head[32+base:]))
	if !ok || length > 1<<30 {
		return "", fmt.Errorf("%w: not a string", ErrMalformed)
	}
	data := l.CompactData
	if ascii {
		data = l.ASCIIData
	}
	raw, err := p.mem.bytes(addr+uint64(data), length*kind, maxPythonString*kind)
	if err != nil {
		return "", err
	}
	return decodePythonString(raw, int(kind)), nil
}

// strKind reads the bit fields of a string: bytes for each character, whether all
// are ASCII. Before 3.14 two bits come before them, then 8 or 16.
func (l *PythonLayout) strKind(state uint32) (kind uint64, ascii, ok bool) {
	shifts := []int{2}
	if l.Minor >= 14 {
		shifts = []int{16, 8, 2}
	}
	for _, shift := range shifts {
		bits := state >> shift
		kind, compact := uint64(bits&7), bits>>3&1 == 1
		ascii := bits>>4&1 == 1
		if compact && (kind == 1 || !ascii && (kind == 2 || kind == 4)) {
			return kind, ascii, true
		}
	}
	return 0, false, false
}

// decodePythonString makes UTF-8 of characters of 1, 2 or 4 bytes.
func decodePythonString(raw []byte, kind int) string {
	var out bytes.Buffer
	for ; len(raw) >= kind; raw = raw[kind:] {
		var r uint32
		switch kind {
		case 1:
			r = uint32(raw[0])
		case 2:
			r = uint32(raw[0]) | uint32(raw[1])<<8
		default:
			r = uint32(raw[0]) | uint32(raw[1])<<8 | uint32(raw[2])<<16 | uint32(raw[3])<<24
		}
		if r > utf8.MaxRune {
			r = utf8.RuneError
		}
		out.WriteRune(rune(r))
	}
	return out.String()
}

// byteString reads a bytes object.
func (p *Python) byteString(addr uint64) ([]byte, error) {
	size, err := p.mem.uint64(addr + uint64(p.Layout.BytesSize))
	if err != nil {
		return nil, err
	}
	if size > maxPythonLineTable {
		return nil, fmt.Errorf("%d bytes: %w", size, ErrTooLarge)
	}
	return p.mem.bytes(addr+uint64(p.Layout.BytesData), size, maxPythonLineTable)
}
