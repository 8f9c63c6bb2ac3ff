package symbolizer

import "debug/elf"

// GoTLS is the offset from the thread pointer at which a Go program keeps the
// goroutine that runs (runtime.tlsg): the last word of the thread-local storage,
// unless C code that was linked in has some of its own.
func (b *Binary) GoTLS() int32 {
	if b.Arch != elf.EM_X86_64 {
		return 16 // behind the two words of the thread control block
	}
	const last = -8
	for _, p := range b.file.Progs {
		if p.Type != elf.PT_TLS || p.Memsz <= 8 || p.Memsz > 1<<20 {
			continue
		}
		align := max(p.Align, 1)
		end := (p.Memsz + align - 1) / align * align
		syms, _ := b.file.Symbols()
		for _, s := range syms {
			if s.Name == "runtime.tlsg" && s.Value < end {
				return int32(s.Value) - int32(end)
			}
		}
	}
	return last
}
