package symbolizer

import (
	"strings"
	"testing"
	"time"
)

// TestRealPrograms reads programs as distributions ship them.
func TestRealPrograms(t *testing.T) {
	for _, c := range []struct {
		pattern  string
		names    []string // exported, so present without debug files
		unnamed  int      // at least, found by their unwind entries
		unwinder bool
	}{
		{"/usr/bin/redis-server", []string{"main", "processCommand", "call", "dictFind"}, 500, false},
		{"/usr/bin/python3.11", []string{"_PyEval_EvalFrameDefault", "PyObject_Call", "Py_BytesMain"}, 1000, false},
		{"/usr/lib/erlang/erts-*/bin/beam.smp", []string{"erts_send_message", "erl_start"}, 500, true},
	} {
		t.Run(c.pattern, func(t *testing.T) {
			path := needFile(t, c.pattern)
			b := open(t, path, Options{NoDebugFiles: true})
			compareWithNM(t, b, []string{"nm", "-D"}, path)
			compareBytes(t, b, path)
			for _, name := range c.names {
				if f := byName(t, b, name); f.Source != SourceDynsym || f.Size == 0 || f.Fragment {
					t.Errorf("%s is %+v", name, f)
				}
			}
			unnamed := 0
			for _, f := range functions(t, b) {
				if f.Source == SourceUnwindTable {
					unnamed++
				}
			}
			if unnamed < c.unnamed {
				t.Errorf("%d unnamed functions, want %d", unnamed, c.unnamed)
			}
			if b.HasUnwinder() != c.unwinder {
				t.Errorf("HasUnwinder = %v", b.HasUnwinder())
			}
		})
	}
}

func TestGoTool(t *testing.T) {
	need(t, "go")
	path := strings.TrimSpace(mustRun(t, "go", "env", "GOROOT")) + "/bin/go"
	b := open(t, path, Options{NoDebugFiles: true})
	start := time.Now()
	funcs := functions(t, b)
	t.Logf("%d functions in %v", len(funcs), time.Since(start))
	if len(funcs) < 10000 || b.GoPackage != "cmd/go" {
		t.Errorf("%d functions, package %q", len(funcs), b.GoPackage)
	}
	for _, s := range nm(t, []string{"go", "tool", "nm"}, path) {
		if s.kind != 'T' && s.kind != 't' || isGoTextMark(s.name) {
			continue
		}
		if f, ok := funcs[s.addr]; !ok || f.Lang != LangGo {
			t.Errorf("%s at %#x is %+v", s.name, s.addr, f)
		}
	}
	compareBytes(t, b, path)
}
