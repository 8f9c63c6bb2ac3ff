package targets

import (
	"testing"

	"github.com/sbxtrace/sbxtrace/symbolizer"
)

// limits are the arguments with which targets end soon.
var limits = map[string][]string{
	"busy":   {"--rounds", "10"},
	"demo":   {"--requests", "50"},
	"godemo": {"--requests", "50"},
	"gosoak": {"--rounds", "5"},
	"hot":    {"--calls", "2000"},
}

// endless targets end when they are told to.
var endless = map[string]bool{"cxxshares": true, "frames": true, "goshares": true, "rustshares": true, "shares": true, "waits": true}

// truthOf lets a target work, for a moment if it is endless.
func truthOf(t *testing.T, name, path string) Truth {
	t.Helper()
	if !endless[name] {
		return Run(t, path, limits[name]...)
	}
	p := Start(t, path)
	p.Ready()
	p.Go()
	truth := p.Stop()
	if err := p.Quit(); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return truth
}

// TestNames checks that every name in a truth is the name of a function in the
// binary, as sbxtrace prints it.
func TestNames(t *testing.T) {
	check := func(t *testing.T, name string, options ...Option) {
		t.Helper()
		path := Build(t, name, options...)
		binary, err := symbolizer.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer binary.Close()
		functions, err := binary.Functions()
		if err != nil {
			t.Fatal(err)
		}
		known := map[string]bool{}
		for _, function := range functions {
			known[function.Name] = true
		}
		truth := truthOf(t, name, path)
		for function := range truth.Counts {
			if !known[function] {
				t.Errorf("no function %q", function)
			}
		}
		for function := range truth.Inlined {
			if known[function] {
				t.Errorf("%q was not inlined", function)
			}
		}
	}
	for _, name := range Names() {
		spec := registry[name]
		if spec.dynamic || name == "crash" || name == "exits" {
			continue // some functions are in libraries; the others end badly
		}
		t.Run(name, func(t *testing.T) { check(t, name) })
		switch {
		case spec.lang == langGo:
			if spec.cgo {
				continue // without symbols the C functions have no names
			}
			t.Run(name+"/strip", func(t *testing.T) { check(t, name, Strip()) })
			t.Run(name+"/pie", func(t *testing.T) { check(t, name, PIE()) })
		case spec.lang == langC || spec.lang == langCPP:
			t.Run(name+"/O0", func(t *testing.T) { check(t, name, OptLevel("0")) })
		}
	}
	t.Run("rustcalls/v0", func(t *testing.T) { check(t, "rustcalls", rustV0...) })
	t.Run("split", func(t *testing.T) { check(t, "calls", SplitDebug()) })
	t.Run("mini", func(t *testing.T) { check(t, "calls", MiniDebug()) })
}
