package view

import (
	"bytes"
	"testing"
)

func renderTree(t *testing.T, act func(*stage), opt TreeOptions) []byte {
	t.Helper()
	var out bytes.Buffer
	tree := NewTree(&out, program, opt)
	s := newStage(tree)
	act(s)
	s.finish()
	if err := tree.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestTree(t *testing.T) {
	for _, sc := range scenes {
		t.Run(sc.name, func(t *testing.T) {
			opt := TreeOptions{Frame: frame}
			if sc.name == "long" {
				opt.Width = 80
			}
			golden(t, "tree-"+sc.name+".txt", renderTree(t, sc.act, opt))
		})
	}
}
