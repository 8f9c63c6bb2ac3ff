package tests

import (
	"testing"

	"github.com/sbxtrace/sbxtrace/internal/targets"
)

// A plug-in brings exceptions into a program that had none when it was
// attached to, and throws through functions that are traced.
func TestRaisingPlugin(t *testing.T) {
	for label, options := range twoBuilds {
		for _, follow := range []string{"--follow", "--no-follow"} {
			t.Run(label+"/"+follow, func(t *testing.T) {
				t.Parallel()
				p := start(t, targets.Build(t, "plugin", options...), "--rounds", "20", "--step")
				s := attach(t, p.PID(), follow, "host_*", "plug_*")
				p.Go()
				p.Line("LOADED ")
				s.waitNote("loaded since")
				p.Go()
				truth := p.Truth()
				if err := p.Quit(); err != nil {
					t.Error(err)
				}
				situation{}.compare(t, s.wait(), truth)
			})
		}
	}
}
