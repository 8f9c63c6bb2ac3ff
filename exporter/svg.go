package exporter

import (
	"bufio"
	"fmt"
	"hash/fnv"
	"html"
	"io"
	"math"
	"strings"
	"unicode/utf8"

	"github.com/google/pprof/profile"

	"github.com/sbxtrace/sbxtrace/internal/term"
)

// Measures of the image, in its own pixels.
const (
	svgWidth    = 1200.0
	svgRow      = 18.0
	svgTop      = 54.0 // above the frames: title and facts
	svgBottom   = 34.0 // below them: what is said of the frame pointed at
	svgPad      = 10.0
	svgNarrow   = 0.3 // narrower frames are left out
	svgChar     = 7.0 // width of a character of the frames' font
	svgMaxNodes = 20_000
	svgShades   = 3
	svgSteps    = 6 // colours of change to either side
)

// writeSVG writes the flame graph as an image, roots at the bottom. Frames have
// their names and values as titles, which viewers show; where scripts run, it
// zooms and searches. Its colours are those that colour-blind people tell
// apart, and follow the system's dark setting.
func writeSVG(w io.Writer, p *profile.Profile, opt Options) error {
	f, err := newFlame(p, opt)
	if err != nil {
		return err
	}
	s := newSVG(f)
	out := bufio.NewWriterSize(w, 64<<10)
	s.head(out)
	for i := range s.boxes {
		s.box(out, &s.boxes[i])
	}
	fmt.Fprintf(out, "</g>\n<script><![CDATA[\n%s\n]]></script>\n</svg>\n", embedded("svg.js"))
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write flame graph: %w", err)
	}
	return nil
}

// svg is an image in the making.
type svg struct {
	f       *flame
	now     []int64 // cumulative, by nodes of the tree
	before  []int64
	total   int64
	was     int64
	boxes   []svgBox
	rows    int
	left    int // frames too narrow
	largest float64
}

type svgBox struct {
	at    int32 // node of the tree
	order int   // node of the graph
	depth int32
	x, w  float64
}

// newSVG lays the frames out.
func newSVG(f *flame) *svg {
	t := f.tree
	s := &svg{f: f, total: t.total[f.Type]}
	s.now, s.before = t.cumulative(f.Type)
	if s.before != nil {
		s.was = t.was[f.Type]
	}
	scale := (svgWidth - 2*svgPad) / max(float64(s.total), 1)
	// Where the next child of the frame at each depth begins.
	var next []float64
	for i, at := range f.order {
		depth := f.Nodes.Depth[i]
		next = append(next[:min(int(depth), len(next))], make([]float64, max(int(depth)-len(next), 0))...)
		x, w := svgPad, float64(s.now[at])*scale
		if depth > 0 {
			x = next[depth-1]
			next[depth-1] += max(w, 0)
		}
		next = append(next, x)
		if at != 0 && (w < svgNarrow || len(s.boxes) >= svgMaxNodes) {
			s.left++
			continue
		}
		s.boxes = append(s.boxes, svgBox{at, i, depth, x, w})
		s.rows = max(s.rows, int(depth)+1)
		s.largest = max(s.largest, size(s.change(at)))
	}
	return s
}

func (s *svg) change(at int32) float64 {
	if s.before == nil {
		return 0
	}
	return ratio(s.now[at], s.total) - ratio(s.before[at], s.was)
}

func (s *svg) height() float64 { return svgTop + float64(s.rows)*svgRow + svgBottom }

func (s *svg) head(w io.Writer) {
	fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" width="%g" height="%g" viewBox="0 0 %g %g" role="img" aria-labelledby="title facts">`+"\n",
		svgWidth, s.height(), svgWidth, s.height())
	fmt.Fprintf(w, "<title>%s</title>\n<style>\n%s\n", html.EscapeString(s.f.title), embedded("svg.css"))
	var dark strings.Builder
	rule := func(class string, light, deep oklch) {
		fmt.Fprintf(w, ".%s{fill:%s}\n", class, light.hex())
		fmt.Fprintf(&dark, ".%s{fill:%s}", class, deep.hex())
		if deep.l > 0.6 {
			fmt.Fprintf(&dark, ".%s+text{fill:#16181d}", class)
		}
	}
	if s.before != nil {
		for k := -svgSteps; k <= svgSteps; k++ {
			step := float64(k) / svgSteps
			light, deep := changeColor(s.largest*step*size(step), s.largest)
			rule(fmt.Sprintf("c%d", k+svgSteps), light, deep)
		}
	} else {
		names := s.groups()
		for id := range min(len(names), 4*len(groupColors)) {
			for shade := range svgShades {
				light, deep := groupColor(names[id], id, float64(shade)/(svgShades-1))
				rule(fmt.Sprintf("g%d-%d", id, shade), light, deep)
			}
		}
	}
	fmt.Fprintf(w, "@media (prefers-color-scheme:dark){%s}\n</style>\n", dark.String())
	fmt.Fprintf(w, `<rect class="ground" width="100%%" height="100%%"/>`+"\n")
	fmt.Fprintf(w, `<text id="title" x="%g" y="24">%s</text>`+"\n", svgPad, html.EscapeString(s.f.title))
	facts := append([]string(nil), s.f.facts...)
	if s.before != nil {
		facts = append(facts, "orange is more in the new one, blue is less")
	}
	if s.left > 0 {
		facts = append(facts, term.Plural(uint64(s.left), "narrow frame")+" left out")
	}
	fmt.Fprintf(w, `<text id="facts" x="%g" y="43">%s</text>`+"\n", svgPad, html.EscapeString(strings.Join(facts, " · ")))
	fmt.Fprintf(w, `<text id="found" x="%g" y="24" text-anchor="end"></text>`+"\n", svgWidth-svgPad)
	fmt.Fprintf(w, `<text id="said" x="%g" y="%g"></text>`+"\n", svgPad, s.height()-12)
	fmt.Fprintf(w, "<g id=\"frames\" role=\"tree\" aria-label=\"Flame graph: arrows move, Enter zooms, Escape zooms out, slash searches\">\n")
}

// groups are the names of what colours stand for.
func (s *svg) groups() []string {
	if s.f.Color == "space" {
		return s.f.Spaces
	}
	return s.f.Modules
}

// class chooses a frame's colour.
func (s *svg) class(b *svgBox) string {
	switch {
	case s.before != nil:
		step := math.Sqrt(size(s.change(b.at)) / max(s.largest, 0.005))
		if size(s.change(b.at)) < 0.0005 {
			step = 0
		}
		return fmt.Sprintf("c%d", svgSteps+int(math.Copysign(math.Ceil(step*svgSteps), s.change(b.at))))
	case b.at == 0:
		return "all"
	}
	number := s.f.Nodes.Frame[b.order]
	id := s.f.Frames.Module[number]
	if s.f.Color == "space" {
		id = s.f.Frames.Space[number]
	}
	h := fnv.New32a()
	io.WriteString(h, s.f.Frames.Name[number])
	return fmt.Sprintf("g%d-%d", id%(4*len(groupColors)), h.Sum32()%svgShades)
}

func (s *svg) box(w io.Writer, b *svgBox) {
	name, brief := "all", "all"
	if b.at != 0 {
		number := s.f.Nodes.Frame[b.order]
		name = s.f.Frames.Name[number]
		brief = shortName(name, s.f.Langs[s.f.Frames.Lang[number]])
	}
	y := svgTop + float64(s.rows-1-int(b.depth))*svgRow
	title := html.EscapeString(name + s.says(b))
	short := ""
	if brief != name {
		short = ` data-short="` + html.EscapeString(brief) + `"`
	}
	fmt.Fprintf(w, `<g role="treeitem" aria-level="%d"%s><title>%s</title><rect class="%s" x="%.2f" y="%g" width="%.2f" height="%g" rx="1.5"/><text x="%.2f" y="%g">%s</text></g>`+"\n",
		b.depth+1, short, title, s.class(b), b.x, y, b.w, svgRow-1, b.x+3, y+svgRow-5.5, html.EscapeString(fit(name, brief, b.w)))
}

// says is what a frame's title says after its name.
func (s *svg) says(b *svgBox) string {
	unit := s.f.Types[s.f.Type].Unit
	said := fmt.Sprintf("\n%s, %s", value(s.now[b.at], unit), percent(ratio(s.now[b.at], s.total)))
	if s.before != nil {
		said += fmt.Sprintf("\nbase %s, %s; change %+.1f points", value(s.before[b.at], unit), percent(ratio(s.before[b.at], s.was)), 100*s.change(b.at))
	}
	if b.at == 0 {
		return said
	}
	node := &s.f.tree.nodes[b.at]
	frame := &s.f.tree.frames[node.frame]
	if frame.Module != "" {
		said += "\n" + s.f.Modules[s.f.Frames.Module[s.f.Nodes.Frame[b.order]]]
	}
	if frame.File != "" {
		said += "\n" + sourceText(frame.File, node.line)
	}
	return said
}

// fit returns as much of a name as a frame of that width has room for: all of
// it, or the beginning of its short form.
func fit(name, brief string, width float64) string {
	n := int((width - 6) / svgChar)
	for _, s := range []string{name, brief} {
		if utf8.RuneCountInString(s) <= n {
			return s
		}
	}
	if n < 3 {
		return ""
	}
	return string([]rune(brief)[:n-1]) + "…"
}
