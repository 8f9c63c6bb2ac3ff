package exporter

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/sbxtrace/sbxtrace/internal/term"
)

// Bounds of the tree of paths.
const (
	pathShare = 0.02 // paths of less are left out
	pathLines = 48
	pathHead  = 4 // frames shown of a long chain, at either end
)

// pathNode is a node of the tree of paths: as much of it as is shown.
type pathNode struct {
	at       int32
	children []*pathNode
}

// paths prints the hottest paths as a tree: a chain of functions that call only
// one another stays in its column, so that deep stacks stay readable.
func (r *report) paths(total int64) {
	r.section("Hottest paths")
	now, _ := r.tree.cumulative(r.typ)
	least := int64(float64(total) * pathShare)
	order, depths := r.tree.order(now, func(at int32) bool { return now[at] > least })
	nodes := make([]*pathNode, 0, len(order))
	var path []*pathNode
	for i, at := range order {
		n := &pathNode{at: at}
		path = path[:depths[i]]
		if len(path) > 0 {
			up := path[len(path)-1]
			up.children = append(up.children, n)
		}
		path = append(path, n)
		nodes = append(nodes, n)
	}
	w := pathWriter{report: r, now: now, total: total}
	w.children(nodes[0], "")
	if w.lines > pathLines {
		r.line(r.paint(r.text.Dim, fmt.Sprintf("  %8s  … %s", "", term.Plural(uint64(w.lines-pathLines), "more line"))))
	}
}

type pathWriter struct {
	*report
	now   []int64
	total int64
	lines int
}

// children prints what is below n, each child with the chain that it begins.
func (w *pathWriter) children(n *pathNode, prefix string) {
	for i, c := range n.children {
		first, rest := "", ""
		if len(n.children) > 1 || n.at != 0 && len(n.children) == 1 {
			first, rest = "├─ ", "│  "
			if i == len(n.children)-1 {
				first, rest = "└─ ", "   "
			}
		}
		w.chain(c, prefix+first, prefix+rest)
	}
}

// chain prints n and what follows it as long as each has one callee with nearly
// all of its share, then the branches.
func (w *pathWriter) chain(n *pathNode, first, rest string) {
	chain := []*pathNode{n}
	for len(n.children) == 1 && w.now[n.children[0].at] >= w.now[n.at]-w.total/200 {
		n = n.children[0]
		chain = append(chain, n)
	}
	skipFrom, skipTo := len(chain), len(chain)
	if len(chain) > 2*pathHead+2 {
		skipFrom, skipTo = pathHead, len(chain)-pathHead
	}
	for i, c := range chain {
		prefix := rest
		if i == 0 {
			prefix = first
		}
		switch {
		case i == skipFrom:
			w.row(-1, prefix, w.paint(w.text.Dim, fmt.Sprintf("⋮ %s", term.Plural(uint64(skipTo-skipFrom), "frame"))))
		case i < skipFrom || i >= skipTo:
			share := -1.0
			if i == 0 {
				share = ratio(w.now[c.at], w.total)
			}
			w.row(share, prefix, w.frameText(c, utf8.RuneCountInString(prefix)))
		}
	}
	w.children(n, rest)
}

// row prints one line while there is room for more; a share below 0 is none.
func (w *pathWriter) row(share float64, prefix, text string) {
	if w.lines++; w.lines > pathLines {
		return
	}
	cell := ""
	if share >= 0 {
		cell = percent(share)
	}
	w.line("  " + w.paint(w.heat(share), right(cell, 8)) + "  " + w.paint(w.text.Dim, prefix) + text)
}

// frameText names a node's function and how much of the whole is its own.
func (w *pathWriter) frameText(n *pathNode, indent int) string {
	own := ""
	if self := w.tree.self[int(n.at)*len(w.tree.types)+w.typ]; self > 0 && len(n.children) > 0 && ratio(self, w.total) >= 0.01 {
		own = " · self " + percent(ratio(self, w.total))
	}
	node := &w.tree.nodes[n.at]
	room := max(w.width-12-indent-utf8.RuneCountInString(own), 12)
	return strings.TrimRight(w.functionText(node.frame, node.line, room), " ") + w.paint(w.text.Dim, own)
}
