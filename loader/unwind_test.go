package loader

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"
	"unsafe"

	"github.com/sbxtrace/sbxtrace/bpf"
	"github.com/sbxtrace/sbxtrace/trace"
)

// What Go writes into memory that it shares with the programs has the layout of
// the C structures.
func TestUnwindLayout(t *testing.T) {
	for name, c := range map[string]struct{ got, want uintptr }{
		"rule":           {unsafe.Sizeof(bpf.ProfileUnwindRule{}), 24},
		"page":           {unsafe.Sizeof(bpf.ProfileUnwindPage{}), 8},
		"mapping":        {unsafe.Sizeof(bpf.ProfileMapping{}), 32},
		"target":         {unsafe.Sizeof(bpf.ProfileTarget{}), 40},
		"rule.saved":     {unsafe.Offsetof(bpf.ProfileUnwindRule{}.Saved), 12},
		"sample.stack":   {unsafe.Offsetof(bpf.ProfileSampleEvent{}.Stack), 96},
		"sample frames":  {uintptr(len(bpf.ProfileSampleEvent{}.Stack)), trace.MaxSampleDepth + 512 + 127},
		"sample.python":  {unsafe.Offsetof(bpf.ProfileSampleEvent{}.Python), 74},
		"python":         {unsafe.Sizeof(bpf.ProfilePython{}), 64},
		"rules":          {uintptr(len(bpf.ProfileUnwindRules{}.Rule)), unwindMaxRules},
		"pages":          {uintptr(len(bpf.ProfileUnwindPages{}.Page)), unwindMaxPages},
		"mappings":       {uintptr(len(bpf.ProfileMappings{}.Mapping)), unwindMaxMappings},
		"registers kept": {uintptr(len(UnwindRule{}.Saved)), uintptr(len(bpf.ProfileUnwindRule{}.Saved))},
	} {
		if c.got != c.want {
			t.Errorf("%s: %d, want %d", name, c.got, c.want)
		}
	}
}

// lookup finds a rule as the program does.
func (u *unwindMaps) lookup(segments [][]uint32, tab Table, addr uint64) UnwindRule {
	off := addr - tab.start
	if off>>unwindPageShift >= uint64(tab.pages) {
		return UnwindRule{}
	}
	page := u.pages[uint64(tab.first)+off>>unwindPageShift]
	rule := uint32(0)
	for _, row := range segments[page.Segment][page.First:][:page.Count] {
		if uint64(row&0xffff) > off&0xffff {
			break
		}
		rule = row >> 16
	}
	r := u.rules[rule]
	return UnwindRule{Kind: r.Kind, Reg: r.Reg, RAReg: r.RaReg, Flags: r.Flags &^ unwindFPSaved, Offset: r.Offset, Second: r.Second, Saved: r.Saved}
}

// fakeUnwindMaps are unwindMaps that are in no kernel.
func fakeUnwindMaps() *unwindMaps {
	return &unwindMaps{
		rules: make([]bpf.ProfileUnwindRule, unwindMaxRules), pages: make([]bpf.ProfileUnwindPage, unwindMaxPages),
		ruleIDs: map[UnwindRule]uint16{{}: 0}, segment: make([]uint32, unwindSegmentRows), nsegment: 1, maxBytes: 1,
	}
}

func TestAddTable(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	rules := []UnwindRule{{}, {Kind: 2, Reg: 7, Offset: 8, Second: -8}, {Kind: 2, Reg: 7, Offset: 16, Second: -8, Saved: [6]int16{0, -4}}, {Kind: 1}}
	u := fakeUnwindMaps()
	for range 20 {
		var rows []UnwindRow
		addr := random.Uint64N(1 << 20)
		for range random.IntN(400) {
			rows = append(rows, UnwindRow{Addr: addr, Rule: random.Uint32N(uint32(len(rules)))})
			step := 1 + random.Uint64N(100)
			if random.IntN(50) == 0 {
				step += random.Uint64N(200_000) // over whole pages
			}
			addr += step
		}
		tab, err := u.addTable(rows, rules)
		if err != nil {
			t.Fatal(err)
		}
		segments := [][]uint32{u.segment}
		for i, row := range rows {
			end := row.Addr + 5
			if i+1 < len(rows) {
				end = rows[i+1].Addr
			}
			for _, at := range []uint64{row.Addr, row.Addr + (end-row.Addr)/2, end - 1} {
				if got := u.lookup(segments, tab, at); got != rules[row.Rule] {
					t.Fatalf("%#x: %+v, want %+v", at, got, rules[row.Rule])
				}
			}
		}
	}
	if u.stats.Rules != len(rules)-1 || len(u.ruleIDs) != len(rules) {
		t.Errorf("%d rules of %d: each is kept once", u.stats.Rules, len(rules))
	}
}

// The tables' memory is bounded: what does not fit is an error and no damage.
func TestAddTableLimits(t *testing.T) {
	u := fakeUnwindMaps()
	if _, err := u.addTable([]UnwindRow{{Addr: 0}, {Addr: 1 << 40}}, []UnwindRule{{}}); !errors.Is(err, ErrTableMemory) {
		t.Errorf("a table over 1 TiB of code: %v", err)
	}
	rows := make([]UnwindRow, unwindSegmentRows+10)
	for i := range rows {
		rows[i].Addr = uint64(i) * 2
	}
	if _, err := u.addTable(rows, []UnwindRule{{}}); !errors.Is(err, ErrTableMemory) {
		t.Errorf("more rows than memory: %v", err)
	}
}

func TestRangeList(t *testing.T) {
	now := time.Now()
	l := rangeList{free: []mappingRange{{0, 100}}}
	a, _ := l.take(40, now)
	b, _ := l.take(40, now)
	if _, ok := l.take(40, now); ok {
		t.Fatal("120 of 100")
	}
	l.give(a, now)
	if _, ok := l.take(40, now.Add(rest/2)); ok {
		t.Error("a range was used again at once")
	}
	l.give(b, now)
	later := now.Add(2 * rest)
	if r, ok := l.take(100, later); !ok || r != (mappingRange{0, 100}) {
		t.Errorf("all given back, and got %+v, %v of %+v", r, ok, l)
	}
}
