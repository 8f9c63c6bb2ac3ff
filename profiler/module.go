package profiler

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/sbxtrace/sbxtrace/loader"
	"github.com/sbxtrace/sbxtrace/symbolizer"
)

// module is code that processes have mapped: a file, the vdso, the kernel, or
// memory that has no file.
type module struct {
	name  string             // path as the first target sees it, or "[vdso]"
	bin   *symbolizer.Binary // nil: nothing to read
	table loader.Table       // in the kernel
	built bool               // table was
	rows  []loader.UnwindRow // of table, until it is loaded
	rules []loader.UnwindRule

	planned bool                // probes is known
	probes  *probing            // nil: none
	maps    map[uint64]*mapping // parts of it that samples are in, by segment
}

// Names of modules that are no files.
const (
	anonymousModule = "[anonymous]" // a JIT's code
	kernelModule    = "[kernel]"
	unknownModule   = "[unknown]" // an address in no code
	wakerModule     = "[waker]"
)

// errEnded is the error for a process whose memory is gone.
func errEnded(pid uint32) error {
	return fmt.Errorf("pid %d: %w: it has ended", pid, symbolizer.ErrNoProcess)
}

// module returns what is mapped at m in a process.
func (p *Profiler) module(pid uint32, m *symbolizer.Mapping) *module {
	if !m.IsFile() && !m.IsVDSO() {
		name := m.Path
		if name == "" {
			name = anonymousModule
		}
		return p.named(name)
	}
	bin, err := symbolizer.OpenMapping(int(pid), *m)
	if err != nil {
		return p.named(m.Path) // its addresses stay numbers
	}
	if m.IsVDSO() {
		// Each process has the same one, and each copy is read anew.
		if known := p.anonymous[m.Path]; known != nil && known.bin != nil && known.bin.BuildID == bin.BuildID {
			bin.Close()
			return known
		}
	}
	mod := p.modules[bin]
	if mod != nil {
		bin.Close() // held once
		return mod
	}
	mod = p.newModule(m.Path, bin)
	p.modules[bin] = mod
	if m.IsVDSO() {
		p.anonymous[m.Path] = mod
	}
	return mod
}

// named returns the module without a file that is called name.
func (p *Profiler) named(name string) *module {
	mod := p.anonymous[name]
	if mod == nil {
		mod = p.newModule(name, nil)
		mod.built = true
		p.anonymous[name] = mod
	}
	return mod
}

func (p *Profiler) newModule(name string, bin *symbolizer.Binary) *module {
	mod := &module{name: name, bin: bin, maps: make(map[uint64]*mapping)}
	p.order = append(p.order, mod)
	return mod
}

// prepare builds the unwind table of a module, once.
func (p *Profiler) prepare(m *module) {
	if m.built {
		return
	}
	m.built = true
	began := time.Now()
	t, err := m.bin.UnwindTable()
	if err != nil {
		p.note("%s: %v: its code is unwound as far as that was read", filepath.Base(m.name), err)
	}
	if t == nil {
		return
	}
	m.rows = make([]loader.UnwindRow, len(t.Rows))
	for i, r := range t.Rows {
		m.rows[i] = loader.UnwindRow{Addr: r.Addr, Rule: r.Rule}
	}
	m.rules = make([]loader.UnwindRule, len(t.Rules))
	for i, r := range t.Rules {
		m.rules[i] = loader.UnwindRule{Kind: uint8(r.Kind), Reg: r.Reg, RAReg: r.RAReg, Flags: r.Flags,
			Offset: r.Offset, Second: r.Second, Saved: r.Saved}
	}
	p.building.Files++
	p.building.UnwindBytes += t.EHFrameBytes
	p.building.Building += time.Since(began)
}

// table returns the unwind table of a module in the kernel, which is loaded when
// it is first asked for.
func (p *Profiler) table(m *module) loader.Table {
	p.prepare(m)
	if m.rows == nil {
		return m.table
	}
	var err error
	m.table, err = p.session.AddTable(m.rows, m.rules)
	m.rows, m.rules = nil, nil
	if err != nil && !(p.full && errors.Is(err, loader.ErrTableMemory)) {
		p.full = errors.Is(err, loader.ErrTableMemory)
		p.note("%s is unwound by frame pointers only: %v", filepath.Base(m.name), err)
	}
	return m.table
}
