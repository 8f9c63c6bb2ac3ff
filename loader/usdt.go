package loader

import (
	"fmt"

	"github.com/sbxtrace/sbxtrace/bpf"
)

// USDTArg says how a static probe's argument is fetched at its site. The
// fields and their values are those of uprobes.ArgSpec.
type USDTArg struct {
	ValOff    int64
	RegOff    uint16
	IdxRegOff uint16
	Kind      uint8
	Size      uint8
	Flags     uint8
	Shift     uint8
}

// setUSDT hands the argument descriptions of static probes to the programs.
func (s *Session) setUSDT(fns []Function) error {
	for i := range fns {
		f := &fns[i]
		if len(f.USDT) == 0 && !f.static() {
			continue
		}
		if f.Announced {
			s.python.announced.Store(f.ID, true)
		}
		spec := bpf.TraceUsdtSpec{}
		spec.Nargs = uint32(min(len(f.USDT), len(spec.Args)))
		texts := spec.Texts[:0]
		for j := range spec.Nargs {
			a, to := &f.USDT[j], &spec.Args[j]
			if a.Size == 8 && len(texts) < len(bpf.TraceUsdtTextEvent{}.Texts) {
				texts = append(texts, uint8(j)) // as wide as an address
			}
			to.ValOff, to.RegOff, to.IdxRegOff = a.ValOff, a.RegOff, a.IdxRegOff
			to.Kind, to.Size, to.Flags, to.Shift = a.Kind, a.Size, a.Flags, a.Shift
		}
		for len(texts) < len(spec.Texts) {
			texts = append(texts, uint8(len(spec.Args))) // none
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
