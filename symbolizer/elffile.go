package symbolizer

import "debug/elf"

// File is the parsed ELF file, for tables that are no business of this package
// (static probes). It is valid until Close and must not be changed.
func (b *Binary) File() *elf.File { return b.file }
