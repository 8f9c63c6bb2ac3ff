package uprobes

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// FunctionProbes describes static probes by which the runtime of a language
// announces the calls of its functions, so that a call tree can be made of
// them. Arguments are counted from 0.
type FunctionProbes struct {
	Lang     string // as in trace.Func.Lang
	Provider string
	Entry    string // fires when a function begins or continues, on the thread that runs it
	Return   string // fires when a function ends or is suspended
	FileArg  int    // char *: source file
	NameArg  int    // char *: function
	LineArg  int    // int: at Entry the line of the definition or continuation, at Return the line that returns
}

// CPythonFunctions are CPython's function__entry and function__return
// (Include/pydtrace.d, "Instrumenting CPython with DTrace and SystemTap").
//
// They nest: an entry's exit is the next function__return of the same thread
// that no later entry claims. A generator or coroutine returns at each yield
// and await and enters again when it continues. Strings are UTF-8 and live as
// long as the code object. Line numbers differ between the two ends, so only
// file and name identify the function there.
//
// Which interpreter announces what:
//
//   - 3.6 to 3.10: both, for every Python function.
//   - 3.11: function__return for every Python function; function__entry only
//     where an exception is thrown into a generator. StaticProbes adds the
//     sites that are missing, see cpython311Entries.
//   - 3.12 to 3.14: neither.
//   - 3.15: both again.
//
// All need an interpreter configured --with-dtrace, as Debian's and Fedora's.
var CPythonFunctions = FunctionProbes{
	Lang: "python", Provider: "python", Entry: "function__entry", Return: "function__return",
	FileArg: 0, NameArg: 1, LineArg: 2,
}

// IsEntry reports whether p announces that a function begins.
func (c *FunctionProbes) IsEntry(p *StaticProbe) bool {
	return p.Provider == c.Provider && p.Name == c.Entry
}

// IsReturn reports whether p announces that a function ends.
func (c *FunctionProbes) IsReturn(p *StaticProbe) bool {
	return p.Provider == c.Provider && p.Name == c.Return
}

// What CPython 3.11 has where, on 64-bit machines. Its bytecode and these
// structures were frozen with 3.11.0.
const (
	cpythonFrameCode     = 0x20 // _PyInterpreterFrame.f_code (Include/internal/pycore_frame.h)
	cpythonFramePrevInst = 0x38 // _PyInterpreterFrame.prev_instr
	cpythonCodeFirstLine = 0x48 // PyCodeObject.co_firstlineno (Include/cpython/code.h)
	cpythonCodeFilename  = 0x70 // PyCodeObject.co_filename
	cpythonCodeName      = 0x78 // PyCodeObject.co_name
	cpythonASCIIData     = 0x30 // sizeof(PyASCIIObject): the characters of an ASCII str follow it

	cpythonOpcodes     = 256
	cpythonResumeQuick = 150 // specialised form of RESUME
	cpythonResume      = 151 // first instruction of every function's body, and after every yield
	cpythonUnused      = 181 // this opcode up to and including the next constant are not used
	cpythonUnusedLast  = 254
)

// maxPythonImage bounds how much of a file is read to find the interpreter's
// loop, in bytes. CPython has 6 MiB; programs that embed it have more.
const maxPythonImage = 256 << 20

// cpython311Entries returns the sites of function__entry that a CPython 3.11
// lacks: where its bytecode RESUME is interpreted. Every call and every
// continuation of a generator executes one RESUME, and each ends in a
// function__return, so the two make a call tree.
//
// A site's arguments are those of the real probe. They are read from the
// interpreter's frame: file and name through the characters of an ASCII string
// (a name with other characters is not readable there), the line from the
// definition.
//
// It returns nil for other versions and for files without function__return. If
// the code is not found in a CPython 3.11, the one probe returned says why in
// its Err.
//
// While a debugger or coverage tool uses sys.settrace, function__entry itself
// fires too, directly before the RESUME of the same function.
func cpython311Entries(f *elf.File, probes []StaticProbe) []StaticProbe {
	wanted := false
	for i := range probes {
		wanted = wanted || CPythonFunctions.IsReturn(&probes[i])
	}
	if !wanted {
		return nil
	}
	entry := StaticProbe{Provider: CPythonFunctions.Provider, Name: CPythonFunctions.Entry, Derived: true}
	py, err := openCPython(f)
	if py == nil && err == nil {
		return nil
	}
	var out []StaticProbe
	if err == nil {
		for _, label := range py.labels {
			var site pythonSite
			if site, err = py.site(label); err != nil {
				break
			}
			p := entry
			p.Addr, p.Args = site.addr, pythonArgs(site.frame)
			var ok bool
			if p.Offset, ok = fileOffset(f, p.Addr, 1, elf.PF_X); !ok {
				err = fmt.Errorf("address 0x%x is not in the file's code", p.Addr)
				break
			}
			out = append(out, p)
		}
	}
	if err != nil {
		entry.Err = fmt.Errorf("static probe %s: CPython 3.11 does not fire it for calls, and its interpreter loop cannot be probed instead: %w", entry.ID(), err)
		return []StaticProbe{entry}
	}
	return out
}

// pythonArgs are the arguments of function__entry, read from the frame in a
// register.
func pythonArgs(frame uint16) []USDTArg {
	field := func(name string, size uint8, signed bool, at, add uint16) USDTArg {
		a := USDTArg{Size: size, Signed: signed, Raw: "frame->f_code->" + name, Spec: ArgSpec{
			Kind: ArgMemField, Size: size, RegOff: frame,
			ValOff: int64(cpythonFrameCode) | int64(at)<<16 | int64(add)<<32,
		}}
		if signed {
			a.Spec.Flags = ArgSigned
		}
		return a
	}
	return []USDTArg{
		field("co_filename", 8, false, cpythonCodeFilename, cpythonASCIIData),
		field("co_name", 8, false, cpythonCodeName, cpythonASCIIData),
		field("co_firstlineno", 4, true, cpythonCodeFirstLine, 0),
	}
}

// cpython is the interpreter loop of a CPython 3.11.
type cpython struct {
	image  []pythonSegment
	table  [cpythonOpcodes]uint64 // opcode_targets: where each bytecode is interpreted
	labels []uint64               // those of RESUME
}

type pythonSegment struct {
	addr uint64
	data []byte
	exec bool
}

// openCPython finds the interpreter loop; nil, nil if f is no CPython 3.11.
func openCPython(f *elf.File) (*cpython, error) {
	symbol := fileSymbols(f)
	version, ok := symbol("Py_Version") // since 3.11
	loop, ok2 := symbol("_PyEval_EvalFrameDefault")
	if !ok || !ok2 {
		return nil, nil
	}
	// Bits 16 and up are major and minor version (PY_VERSION_HEX).
	if v, ok := readAddr(f, version); !ok || v>>16 != 0x030b {
		return nil, nil
	}
	if f.Machine != elf.EM_X86_64 {
		return nil, fmt.Errorf("not known for %s", f.Machine)
	}
	py := &cpython{}
	if err := py.load(f); err != nil {
		return nil, err
	}
	if !py.findTable(loop) {
		return nil, errors.New("its table of bytecodes was not found")
	}
	py.labels = []uint64{py.table[cpythonResume], py.table[cpythonResumeQuick]}
	return py, nil
}

// readAddr reads 8 bytes at an address of the file.
func readAddr(f *elf.File, addr uint64) (uint64, bool) {
	for _, s := range f.Progs {
		if s.Type != elf.PT_LOAD || addr < s.Vaddr || addr-s.Vaddr >= s.Filesz {
			continue
		}
		var b [8]byte
		_, err := s.ReadAt(b[:], int64(addr-s.Vaddr))
		return binary.LittleEndian.Uint64(b[:]), err == nil
	}
	return 0, false
}

// load reads the file's segments and applies its relative relocations, by which
// position-independent code fills the table.
func (py *cpython) load(f *elf.File) error {
	const maxLoads = 64 // a linker makes four or five
	left := int64(maxPythonImage)
	for _, s := range f.Progs {
		if s.Type != elf.PT_LOAD {
			continue
		}
		if len(py.image) == maxLoads {
			return fmt.Errorf("the file has more than %d segments", maxLoads)
		}
		data, err := io.ReadAll(io.LimitReader(s.Open(), left+1))
		if err != nil {
			return fmt.Errorf("read segment at 0x%x: %w", s.Vaddr, err)
		}
		if left -= int64(len(data)); left < 0 {
			return fmt.Errorf("the file is larger than %d MiB", maxPythonImage>>20)
		}
		py.image = append(py.image, pythonSegment{addr: s.Vaddr, data: data, exec: s.Flags&elf.PF_X != 0})
	}
	for _, s := range f.Sections {
		if s.Type != elf.SHT_RELA || s.Flags&elf.SHF_ALLOC == 0 || s.FileSize > maxPythonImage {
			continue
		}
		rela, err := s.Data()
		if err != nil {
			return fmt.Errorf("read %s: %w", s.Name, err)
		}
		for ; len(rela) >= 24; rela = rela[24:] {
			if elf.R_X86_64(binary.LittleEndian.Uint32(rela[8:])) != elf.R_X86_64_RELATIVE {
				continue
			}
			if at := py.at(binary.LittleEndian.Uint64(rela)); len(at) >= 8 {
				copy(at, rela[16:24])
			}
		}
	}
	return nil
}

// at returns the bytes from an address to the end of its segment's data.
func (py *cpython) at(addr uint64) []byte {
	for i := range py.image {
		s := &py.image[i]
		if addr >= s.addr && addr-s.addr < uint64(len(s.data)) {
			return s.data[addr-s.addr:]
		}
	}
	return nil
}

func (py *cpython) isCode(addr uint64) bool {
	for i := range py.image {
		s := &py.image[i]
		if s.exec && addr >= s.addr && addr-s.addr < uint64(len(s.data)) {
			return true
		}
	}
	return false
}

// findTable looks for opcode_targets (Python/opcode_targets.h), an array of
// labels: all unused opcodes share one, every used one differs from that, and
// RESUME lies in the loop's function, which begins at loop.
func (py *cpython) findTable(loop uint64) bool {
	const size = 8 * cpythonOpcodes
	for i := range py.image {
		data := py.image[i].data
		unused := uint64(0)
		run := 0 // words alike up to here
		for pos := 0; pos+8 <= len(data); pos += 8 {
			w := binary.LittleEndian.Uint64(data[pos:])
			if w != unused {
				unused, run = w, 0
			}
			run++
			start := pos - 8*cpythonUnusedLast
			if run < cpythonUnusedLast-cpythonUnused+1 || w == 0 || start < 0 || start+size > len(data) {
				continue
			}
			if py.isTable(data[start:start+size], unused, loop) {
				return true
			}
		}
	}
	return false
}

// isTable checks a candidate and keeps it if it is the table.
func (py *cpython) isTable(data []byte, unused, loop uint64) bool {
	// The largest loop of a debug build has 80 KiB.
	const maxLoop = 1 << 20
	for op := range py.table {
		label := binary.LittleEndian.Uint64(data[8*op:])
		if isUnused := op >= cpythonUnused && op <= cpythonUnusedLast; (label == unused) != isUnused || !py.isCode(label) {
			return false
		}
		py.table[op] = label
	}
	for _, op := range []int{cpythonResume, cpythonResumeQuick} {
		if label := py.table[op]; label < loop || label-loop >= maxLoop {
			return false
		}
	}
	return true
}

// pythonSite is where to probe the interpretation of a bytecode.
type pythonSite struct {
	addr  uint64
	frame uint16 // offset into struct pt_regs of the register with the frame
}

// site chooses the probe's place behind a bytecode's label. The frame is in the
// register through which the instruction pointer is saved, which all bytecodes
// begin with ("frame->prev_instr = next_instr++"). A probe on the first branch
// is twenty times cheaper than on the label, and as good if nothing jumps
// between the two.
func (py *cpython) site(label uint64) (pythonSite, error) {
	const maxPrologue = 24 // instructions
	var (
		code    = py.at(label)
		in      insnAMD64
		frame   = -1
		written uint32 // registers, since the label
		branch  bool   // the instruction at addr is a branch, which the kernel emulates
	)
	addr := label
	for range maxPrologue {
		if !decodeAMD64(code, &in) {
			break
		}
		// On the stack it would be a local variable.
		if base, index := in.storesRegister(); base < baseNone && base != regRSP && index == baseNone &&
			in.disp == cpythonFramePrevInst && written>>base&1 == 0 && frame < 0 {
			frame = int(base)
		}
		if in.flow != flowNext {
			branch = in.flow == flowCond || in.flow == flowJump
			break
		}
		effect := effectAMD64(&in)
		if effect.opaque {
			break
		}
		written |= effect.regs
		addr += uint64(in.length)
		code = code[in.length:]
	}
	if frame < 0 {
		return pythonSite{}, fmt.Errorf("the code at 0x%x does not save the instruction pointer as expected", label)
	}
	site := pythonSite{addr: label, frame: ptRegsOffset(frame)}
	if branch && written>>frame&1 == 0 && !py.jumpsInto(label+1, addr+1) {
		site.addr = addr
	}
	return site, nil
}

// storesRegister returns base and index of the memory that "mov %r64, mem"
// writes to, and no register for other instructions.
func (in *insnAMD64) storesRegister() (base, index uint8) {
	if in.enc != encLegacy || in.opMap != mapOne || in.op != 0x89 || in.rex&8 == 0 || !in.isMem() || in.prefix&prefixFSGS != 0 {
		return baseNone, baseNone
	}
	return in.mem()
}

// ptRegsOffset translates a register's number in instructions.
func ptRegsOffset(reg int) uint16 {
	names := [16]string{"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"}
	return x86Regs[names[reg&15]]
}

// jumpsInto reports whether anything may jump to an address from lo up to but
// not including hi: a bytecode's label, or any bytes that could be a relative
// branch. Decoding all code would say more exactly that nothing does, but a
// chance hit is unlikely and only makes the probe slower.
func (py *cpython) jumpsInto(lo, hi uint64) bool {
	for _, label := range py.table {
		if label >= lo && label < hi {
			return true
		}
	}
	for i := range py.image {
		s := &py.image[i]
		if !s.exec {
			continue
		}
		for pos := 0; pos+4 <= len(s.data); pos++ {
			at := s.addr + uint64(pos)
			rel := uint64(int64(int32(binary.LittleEndian.Uint32(s.data[pos:]))))
			if at+4+rel-lo < hi-lo && pos >= 1 && isNearBranch(s.data[:pos]) {
				return true
			}
			// Short branches are a byte of opcode and one of displacement.
			if at+1+uint64(int64(int8(s.data[pos])))-lo < hi-lo && pos >= 1 && isShortBranch(s.data[pos-1]) && !(at >= lo && at < hi) {
				return true
			}
		}
	}
	return false
}

// isNearBranch reports whether code ends in the opcode of a branch with a
// displacement of four bytes.
func isNearBranch(code []byte) bool {
	last := code[len(code)-1]
	return last == 0xe8 || last == 0xe9 || last&0xf0 == 0x80 && bytes.HasSuffix(code[:len(code)-1], []byte{0x0f})
}

func isShortBranch(op byte) bool { return op == 0xeb || op&0xf0 == 0x70 || op >= 0xe0 && op <= 0xe3 }
