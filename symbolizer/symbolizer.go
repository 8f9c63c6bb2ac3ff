// Package symbolizer turns addresses into functions, files and lines and back.
// It reads ELF files, their separate debug information, and process maps. It
// never talks to BPF: everything here works on any file a caller can open.
package symbolizer

// Lang is the source language a function was written in, as far as the binary
// tells (DWARF language, Go build information, symbol mangling).
type Lang uint8

// Languages, ordered by how little is known about them.
const (
	LangUnknown Lang = iota
	LangAsm
	LangC
	LangCPP
	LangRust
	LangGo
)

// String returns the language's lower-case name as printed by `functions`.
func (l Lang) String() string {
	switch l {
	case LangAsm:
		return "asm"
	case LangC:
		return "c"
	case LangCPP:
		return "c++"
	case LangRust:
		return "rust"
	case LangGo:
		return "go"
	}
	return "unknown"
}

// FuncSource says which table of the binary named a function.
type FuncSource uint8

// Sources of a function's name, best first where two tables name one address.
const (
	SourceSymtab      FuncSource = iota // .symtab of the binary itself
	SourceDebugFile                     // .symtab of a separate debug file (build-id or debug link)
	SourceMiniDebug                     // .symtab inside .gnu_debugdata (xz)
	SourcePclntab                       // Go's runtime function table
	SourceDynsym                        // .dynsym: exported functions only
	SourceUnwindTable                   // .eh_frame range without a name
)

// String returns the source's name as printed by `functions --verbose`.
func (s FuncSource) String() string {
	switch s {
	case SourceSymtab:
		return "symtab"
	case SourceDebugFile:
		return "debug file"
	case SourceMiniDebug:
		return "gnu_debugdata"
	case SourcePclntab:
		return "pclntab"
	case SourceDynsym:
		return "dynsym"
	case SourceUnwindTable:
		return "eh_frame"
	}
	return "unknown"
}

// Function is one named code range of an ELF file.
type Function struct {
	Name    string     // as a person reads it: demangled; module+0xoffset when unnamed
	Symbol  string     // linkage name; empty for unnamed ranges
	Aliases []string   // other linkage names of the same address, sorted
	Addr    uint64     // virtual address in the ELF file (not relocated)
	Offset  uint64     // file offset of the first byte, what a uprobe takes
	Size    uint64     // bytes; 0 when unknown and not derivable
	Lang    Lang       // source language where known
	Package string     // Go import path ("net/http", "main"); empty elsewhere
	Source  FuncSource // the table the name comes from
	IFunc   bool       // STT_GNU_IFUNC: the symbol is a resolver, not the function called
	ABI0    bool       // Go only: assembly calling convention, g is not in its register

	// Fragment is set for code that is reached by jumps, never by a call: the
	// cold part of a function (".cold"), a signal trampoline. The return address
	// is not at the stack pointer when it starts, so a return probe there would
	// overwrite something else.
	Fragment bool
}
