package symbolizer

import (
	"fmt"
	"path/filepath"
)

// Location is what an address of a process means.
type Location struct {
	Module   string    // path of the mapped file as the target sees it; "[vdso]", "[vsyscall]"; empty for anonymous code
	Main     bool      // the module is the process's executable
	Binary   *Binary   // the module's file; nil if it could not be read. Valid until ProcessSymbols is closed
	Function *Function // nil if unknown
	Offset   uint64    // of the address from the start of Function or JIT
	Addr     uint64    // virtual address in the ELF file, 0 without Binary
	File     uint64    // offset in the mapped file, in anonymous memory from the start of the mapping

	// Mapping is the executable mapping of the process that has the address. It is
	// shared: do not change it.
	Mapping *Mapping
	// JIT is the function that the process's runtime has generated there, nil where
	// the code comes from a file or has no name.
	JIT *JITFunction
}

// BuildID is the build id of the module in hex, empty if it has none.
func (l *Location) BuildID() string {
	if l.Binary == nil {
		return ""
	}
	return l.Binary.BuildID
}

// String formats the location as in a stack trace: "function+0x12", or
// "module+0x1234" where the function is unknown, see Unnamed.
func (l Location) String() string {
	name := ""
	switch {
	case l.Function != nil:
		name = l.Function.Name
	case l.JIT != nil:
		name = l.JIT.Name
	case l.Mapping != nil || l.Module != "":
		return l.Unnamed()
	default:
		return "unknown"
	}
	if l.Offset != 0 {
		return fmt.Sprintf("%s+%#x", name, l.Offset)
	}
	return name
}

// Unnamed is what the address is called without a function's name:
// "module+0x1234", with the offset from where the module is loaded, which is
// what addr2line and the like take; "[anonymous]+0x1234" for code without a file.
func (l *Location) Unnamed() string {
	switch {
	case l.Binary != nil && l.Addr != 0:
		return fmt.Sprintf("%s+%#x", l.Binary.moduleName(), l.Addr-l.Binary.base())
	case l.Module != "":
		return fmt.Sprintf("%s+%#x", filepath.Base(l.Module), l.File)
	}
	return fmt.Sprintf("[anonymous]+%#x", l.File)
}

// Frames returns the source-level frames at the location, innermost first: what
// was inlined there and last the function whose code it is. There is always one;
// without a name it is called as Unnamed says. The slice is shared: do not change
// it.
func (l *Location) Frames() []Frame {
	switch {
	case l.JIT != nil:
		return []Frame{{Function: l.JIT.Name, File: l.JIT.File, Line: l.JIT.Line}}
	case l.Binary != nil && l.Addr != 0:
		frames := l.Binary.Inlines(l.Addr)
		if n := len(frames); n > 0 && frames[n-1].Function != "" {
			return frames
		} else if n > 0 {
			// Debug information about code that no function has.
			named := append([]Frame(nil), frames...)
			named[n-1].Function = l.Unnamed()
			return named
		}
	case l.Function != nil:
		return []Frame{{Function: l.Function.Name}}
	}
	return []Frame{{Function: l.Unnamed()}}
}

// vsyscallName is the page of three functions that old x86-64 programs call.
const vsyscallName = "[vsyscall]"

// vsyscalls are at fixed places: arch/x86/entry/vsyscall in the kernel's sources.
var vsyscalls = []Function{
	{Name: "gettimeofday", Symbol: "gettimeofday", Addr: 0x000, Size: 0x400},
	{Name: "time", Symbol: "time", Addr: 0x400, Size: 0x400},
	{Name: "getcpu", Symbol: "getcpu", Addr: 0x800, Size: 0x400},
}

func vsyscall(off uint64) (*Function, uint64) {
	for i := range vsyscalls {
		if f := &vsyscalls[i]; off >= f.Addr && off-f.Addr < f.Size {
			return f, off - f.Addr
		}
	}
	return nil, 0
}
