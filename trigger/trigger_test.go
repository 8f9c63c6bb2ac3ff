package trigger

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/sbxtrace/sbxtrace/trace"
)

func TestParse(t *testing.T) {
	for _, ok := range []string{
		"call(parse*) > 50ms", "call > 1s", "call(std::map<int, x>::find(int)) >= 1us", "self(f)>1ms", "ret(open*) < 0", "ret(f) == 0x10",
		"ret != -1", "entry(f)", "entry", "rate > 1000/s", "rate(f) >= 10", "crash", "exit", " lost ",
	} {
		if c, err := Parse(ok); err != nil || c.Text != strings.TrimSpace(ok) {
			t.Errorf("%s: %v", ok, err)
		}
	}
	for _, bad := range []string{
		"", "call", "call(f)", "call(f) > 5", "call(f) > -1ms", "ret(f) < x", "rate < 10/s", "rate > x", "entry(f) > 1", "crash(f)", "exit > 1",
		"duration > 1ms", "call(f) => 1ms", "call(f) > 1ms 2ms", "(f) > 1ms",
	} {
		if _, err := Parse(bad); !errors.Is(err, ErrCondition) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// names are functions by id.
type names []string

func (n names) Func(id trace.FuncID) *trace.Func { return &trace.Func{ID: id, Name: n[id]} }

// fired plays a made-up story and returns which conditions were met when.
func fired(t *testing.T, conds ...string) string {
	t.Helper()
	var all []*Condition
	for _, s := range conds {
		c, err := Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	var out []string
	match := func(glob string) (func(*trace.Func) bool, error) {
		return func(f *trace.Func) bool { return strings.HasPrefix(f.Name, strings.TrimSuffix(glob, "*")) }, nil
	}
	w, err := NewWatch(all, names{"main", "read", "ready"}, match, func(c *Condition, at uint64) {
		out = append(out, fmt.Sprintf("%s@%d", c.Text, at))
	})
	if err != nil {
		t.Fatal(err)
	}
	p := trace.NewPairer(w, nil)
	call := func(fn trace.FuncID, from, to, sp, ret uint64) {
		p.Event(&trace.Event{Kind: trace.KindEntry, Time: from, PID: 1, TID: 1, SP: sp, Func: fn})
		p.Event(&trace.Event{Kind: trace.KindExit, Time: to, PID: 1, TID: 1, SP: sp, Func: fn, Ret: ret, Flags: trace.FlagReturn})
	}
	p.Event(&trace.Event{Kind: trace.KindEntry, Time: 10, PID: 1, TID: 1, SP: 100, Func: 0})
	call(1, 20, 30, 90, 5)
	call(1, 40, 1040, 90, 0xffffffff)         // int: -1
	call(2, 1050, 1060, 90, ^uint64(0))       // long: -1
	call(2, 1070, 1080, 90, 0xffff_ffff_0000) // a pointer
	p.Event(&trace.Event{Kind: trace.KindExit, Time: 1100, PID: 1, TID: 1, SP: 100, Func: 0})
	p.Event(&trace.Event{Kind: trace.KindLost, Time: 1110, Count: 1})
	p.Event(&trace.Event{Kind: trace.KindProcessExit, Time: 1120, PID: 2, TID: 2, Status: 1 << 8})
	p.Event(&trace.Event{Kind: trace.KindProcessExit, Time: 1130, PID: 1, TID: 1, Status: 0x80 | 11})
	return strings.Join(out, " ")
}

func TestWatch(t *testing.T) {
	for _, tt := range []struct{ cond, want string }{
		{"call(read*) > 500ns", "call(read*) > 500ns@1040"},
		{"call > 500ns", "call > 500ns@1040 call > 500ns@1100"},
		{"self(main) < 100ns", "self(main) < 100ns@1100"},
		{"ret(read*) < 0", "ret(read*) < 0@1040 ret(read*) < 0@1060"},
		{"ret(read) == 5", "ret(read) == 5@30"},
		{"entry(ready)", "entry(ready)@1050 entry(ready)@1070"},
		{"rate(read*) >= 3/s", "rate(read*) >= 3/s@1050"},
		{"crash", "crash@1130"},
		{"exit", "exit@1120 exit@1130"},
		{"lost", "lost@1110"},
		{"call(main) > 1h", ""},
	} {
		if got := fired(t, tt.cond); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.cond, got, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("call(parse*) > 50ms")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := Parse(s)
		if (c == nil) == (err == nil) {
			t.Errorf("%q: %v and %v", s, c, err)
		}
	})
}
