package loader

import (
	"fmt"

	"github.com/sbxtrace/sbxtrace/bpf"
)

// USDTArg says how a static probe's argument is read at its site.
type USDTArg struct {
	Kind   uint8  // 0 constant, 1 register, 2 memory
	Value  int64  // the constant, or the displacement in bytes
	Reg    uint16 // byte offset of the register in struct pt_regs
	Index  uint16 // the same of the index register; NoIndex for none
	Scale  uint8  // factor of the index register
	Size   uint8  // bytes: 1, 2, 4 or 8
	Signed bool
}

// NoIndex is the Index of a memory operand without index register.
const NoIndex = 0xffff

// setUSDT hands the argument descriptions of static probes to the programs.
func (s *Session) setUSDT(fns []Function) error {
	for i := range fns {
		f := &fns[i]
		if len(f.USDT) == 0 && !f.static() {
			continue
		}
		spec := bpf.TraceUsdtSpec{}
		spec.Nargs = uint64(min(len(f.USDT), len(spec.Args)))
		for j := range spec.Nargs {
			a, to := &f.USDT[j], &spec.Args[j]
			to.Kind, to.Value, to.Reg, to.Index = a.Kind, a.Value, a.Reg, a.Index
			to.Scale, to.Size = a.Scale, a.Size
			if a.Signed {
				to.IsSigned = 1
			}
		}
		if err := s.coll.Maps["usdt_specs"].Put(uint32(f.ID), &spec); err != nil {
			return fmt.Errorf("describe the arguments of static probe %d: %w", f.ID, err)
		}
	}
	return nil
}

// static reports whether f is a static probe.
func (f *Function) static() bool {
	for i := range f.Probes {
		switch f.Probes[i].Program {
		case ProgramUSDT, ProgramPythonEntry, ProgramPythonReturn:
			return true
		}
	}
	return false
}
