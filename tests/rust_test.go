package tests

import (
	"testing"

	"github.com/sbxtrace/sbxtrace/internal/targets"
)

// rustBuilds are how Rust programs come.
var rustBuilds = map[string][]targets.Option{
	"default": nil,
	"O0":      {targets.OptLevel("0")},
	"static":  {targets.Static()},
}

// Generics, traits, closures, drops.
func TestRustCalls(t *testing.T) {
	s := situation{target: "rustcalls", args: []string{"--rounds", "7", "--threads", "3"}}
	s.inBuilds(t, rustBuilds)
	s.build = []targets.Option{targets.Flags("-Csymbol-mangling-version=v0", "--cfg", "v0")}
	s.inBuild(t, "v0")
}

// Panics that pass through traced frames.
func TestRustPanics(t *testing.T) {
	for label, options := range rustBuilds {
		s := situation{target: "rustpanics", args: []string{"--rounds", "5", "--threads", "3"}, build: options}
		if label == "O0" {
			// Without optimisation a landing pad calls drop_in_place, which calls
			// drop. If only the latter is traced, it seems to run inside the frame
			// that the panic has left just before, since it is deeper.
			s.flags = []string{"*rustpanics*"}
		}
		s.inBuild(t, label)
	}
}

// A program of two crates, built by cargo.
func TestRustCargo(t *testing.T) {
	situation{
		target: "rustsvc", args: []string{"--requests", "80"},
		flags: []string{"--package", "rustsvc", "--package", "rustsvc_store"},
	}.inBuilds(t, rustBuilds)
}
