package uprobes

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"
)

func TestFunctionProbesRoles(t *testing.T) {
	c := &CPythonFunctions
	for id, want := range map[string][2]bool{
		"python:function__entry":  {true, false},
		"python:function__return": {false, true},
		"python:line":             {false, false},
		"ruby:function__entry":    {false, false},
	} {
		provider, name, _ := strings.Cut(id, ":")
		p := &StaticProbe{Provider: provider, Name: name}
		if c.IsEntry(p) != want[0] || c.IsReturn(p) != want[1] {
			t.Errorf("%s: entry %v, return %v", id, c.IsEntry(p), c.IsReturn(p))
		}
	}
}

// testCPython has code at 0x1000 and, elsewhere in it, something else.
func testCPython(code, elsewhere []byte) *cpython {
	data := make([]byte, 0x200)
	copy(data, code)
	copy(data[0x100:], elsewhere)
	return &cpython{image: []pythonSegment{
		{addr: 0x1000, data: data, exec: true},
		{addr: 0x8000, data: elsewhere}, // not code, whatever it looks like
	}}
}

func TestCPythonSite(t *testing.T) {
	// mov 0x8(%rsp),%rax; mov %r15,0x38(%rbx); lea 0x2(%r15),%r10; cmp $1,%r9d; jg +0
	resume := []byte{0x48, 0x8b, 0x44, 0x24, 0x08, 0x4c, 0x89, 0x7b, 0x38, 0x4d, 0x8d, 0x57, 0x02, 0x41, 0x83, 0xf9, 0x01, 0x0f, 0x8f, 0, 0, 0, 0}
	const jcc = 0x1011
	rbx := uint16(40)
	jump := func(op []byte, at, to uint64) []byte {
		return binary.LittleEndian.AppendUint32(op, uint32(to-(at+uint64(len(op))+4)))
	}
	tests := []struct {
		name      string
		code      []byte
		elsewhere []byte
		addr      uint64
		frame     uint16
		err       string
	}{
		{name: "moved to the branch", code: resume, addr: jcc, frame: rbx},
		{name: "jump to the label", code: resume, elsewhere: jump([]byte{0xe9}, 0x1100, 0x1000), addr: jcc, frame: rbx},
		{name: "jump behind the site", code: resume, elsewhere: jump([]byte{0xe9}, 0x1100, jcc+1), addr: jcc, frame: rbx},
		{name: "jump to the site", code: resume, elsewhere: jump([]byte{0xe9}, 0x1100, jcc), addr: 0x1000, frame: rbx},
		{name: "conditional jump between", code: resume, elsewhere: jump([]byte{0x0f, 0x84}, 0x1100, 0x1005), addr: 0x1000, frame: rbx},
		{name: "short jump between", code: slices.Concat(resume, []byte{0xeb, 0xec}), addr: 0x1000, frame: rbx}, // to 0x1005
		{name: "no branch", code: append(slices.Clone(resume[:17]), 0xc3), addr: 0x1000, frame: rbx},
		// mov %r15,0x38(%rbx); mov %rax,%rbx; jg
		{name: "frame overwritten", code: []byte{0x4c, 0x89, 0x7b, 0x38, 0x48, 0x89, 0xc3, 0x0f, 0x8f, 0, 0, 0, 0}, addr: 0x1000, frame: rbx},
		// mov %rax,%rbx; mov %r15,0x38(%rbx); jg
		{name: "frame not there yet", code: []byte{0x48, 0x89, 0xc3, 0x4c, 0x89, 0x7b, 0x38, 0x0f, 0x8f, 0, 0, 0, 0}, err: "does not save"},
		{name: "a local variable", code: []byte{0x4c, 0x89, 0x7c, 0x24, 0x38, 0x0f, 0x8f, 0, 0, 0, 0}, err: "does not save"}, // mov %r15,0x38(%rsp)
		{name: "half a register", code: []byte{0x44, 0x89, 0x7b, 0x38, 0x0f, 0x8f, 0, 0, 0, 0}, err: "does not save"},        // mov %r15d,0x38(%rbx)
		{name: "another field", code: []byte{0x4c, 0x89, 0x7b, 0x30, 0x0f, 0x8f, 0, 0, 0, 0}, err: "does not save"},          // mov %r15,0x30(%rbx)
		{name: "stored after the branch", code: append([]byte{0x0f, 0x8f, 0, 0, 0, 0}, resume...), err: "does not save"},
		{name: "no code", code: []byte{0x06}, err: "does not save"},
	}
	for _, test := range tests {
		site, err := testCPython(test.code, test.elsewhere).site(0x1000)
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%s: got %+v, %v, want %q", test.name, site, err, test.err)
			}
			continue
		}
		if err != nil || site.addr != test.addr || site.frame != test.frame {
			t.Errorf("%s: got 0x%x, frame at %d, %v; want 0x%x, %d", test.name, site.addr, site.frame, err, test.addr, test.frame)
		}
	}
	py := testCPython(resume, nil)
	py.table[7] = 0x1009
	if site, err := py.site(0x1000); err != nil || site.addr != 0x1000 {
		t.Errorf("another bytecode begins between label and branch: got %+v, %v", site, err)
	}
}

func TestCPythonTable(t *testing.T) {
	const loop = 0x1000
	const unused = 0x1100
	labels := make([]uint64, cpythonOpcodes)
	for op := range labels {
		labels[op] = loop + uint64(op)
		if op >= cpythonUnused && op <= cpythonUnusedLast {
			labels[op] = unused
		}
	}
	find := func(change func(labels []uint64)) (*cpython, bool) {
		words := slices.Clone(labels)
		if change != nil {
			change(words)
		}
		// Words before and after do not belong to the table.
		words = slices.Concat([]uint64{0x1001, 0, 0x1002}, words, []uint64{unused, 0x1003})
		var data []byte
		for _, w := range words {
			data = binary.LittleEndian.AppendUint64(data, w)
		}
		py := &cpython{image: []pythonSegment{{addr: loop, data: make([]byte, 0x200), exec: true}, {addr: 0x8000, data: data}}}
		return py, py.findTable(loop)
	}
	py, ok := find(nil)
	if !ok || !slices.Equal(py.table[:], labels) {
		t.Errorf("the table was not found: %v, %x", ok, py.table)
	}
	for name, change := range map[string]func([]uint64){
		"a used bytecode counts as unused": func(l []uint64) { l[3] = unused },
		"an unused one has a label":        func(l []uint64) { l[200] = 0x1050 },
		"a label is not code":              func(l []uint64) { l[3] = 0x8000 },
		"RESUME is elsewhere":              func(l []uint64) { l[cpythonResume] = 0x0fff },
		"all alike":                        func(l []uint64) { copy(l, slices.Repeat([]uint64{unused}, len(l))) },
	} {
		if _, ok := find(change); ok {
			t.Errorf("%s, and it is a table nevertheless", name)
		}
	}
	short := &cpython{image: []pythonSegment{{addr: loop, data: make([]byte, 7), exec: true}}}
	if short.findTable(loop) {
		t.Error("a table in 7 bytes")
	}
}

// TestCPythonNotFound has every symptom of a CPython 3.11 but its code.
func TestCPythonNotFound(t *testing.T) {
	f := testELF()
	if got := cpython311Entries(f, []StaticProbe{{Provider: "python", Name: "function__entry"}}); got != nil {
		t.Errorf("without function__return: %+v", got)
	}
	if got := cpython311Entries(f, []StaticProbe{{Provider: "python", Name: "function__return"}}); got != nil {
		t.Errorf("without symbols: %+v", got)
	}
	if site, err := (&cpython{}).site(0x1234); err == nil {
		t.Errorf("a site in no code: %+v", site)
	}
	for reg, want := range map[int]uint16{regRAX: 80, regRBX: 40, 15: 0, 12: 24, regRBP: 32} {
		if got := ptRegsOffset(reg); got != want {
			t.Errorf("register %d: offset %d, want %d", reg, got, want)
		}
	}
}
