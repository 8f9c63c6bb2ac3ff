package view

import (
	"bytes"
	"regexp"
	"testing"

	"github.com/sbxtrace/sbxtrace/trace"
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

func TestTreeColor(t *testing.T) {
	for _, sc := range scenes {
		plain := renderTree(t, sc.act, TreeOptions{})
		color := renderTree(t, sc.act, TreeOptions{Color: true})
		if got := escapes.ReplaceAll(color, nil); !bytes.Equal(got, plain) {
			t.Errorf("%s: colour changes the text\n%s", sc.name, firstDifference(got, plain))
		}
		if bytes.Contains(plain, []byte("\x1b")) {
			t.Errorf("%s: escape sequences without colour", sc.name)
		}
		for line := range bytes.Lines(color) {
			all := escapes.FindAll(line, -1)
			if len(all) > 0 && string(all[len(all)-1]) != "\x1b[0m" {
				t.Errorf("%s: colour runs over the line's end: %q", sc.name, line)
			}
		}
		if sc.name == "nested" {
			golden(t, "tree-color.txt", color)
		}
	}
}

var escapes = regexp.MustCompile("\x1b\\[[0-9]+m")

// A thread's name is shown once, and again when it has another.
func TestTreeThreadNames(t *testing.T) {
	var out bytes.Buffer
	tree := NewTree(&out, program, TreeOptions{})
	a, b := &trace.Lane{PID: 1, TID: 1, Comm: "main\x1b"}, &trace.Lane{PID: 1, TID: 2, Comm: "worker"}
	now := uint64(start)
	leaf := func(l *trace.Lane) {
		c := trace.Call{Start: now, Last: now + 10, Func: fnMalloc, Depth: int32(len(l.Open))}
		tree.Enter(l, &c)
		tree.Leave(l, &c)
	}
	leaf(a)
	leaf(b)
	now += sec
	leaf(a)
	b.Comm = "renamed"
	b.Open = []trace.Call{{Func: fnMain}}
	leaf(b)
	if err := tree.Close(); err != nil {
		t.Fatal(err)
	}
	golden(t, "tree-names.txt", out.Bytes())
}
