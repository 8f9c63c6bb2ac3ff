package exporter

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// TestFlameGraph uses the pages as a person does, in headless Chromium.
func TestFlameGraph(t *testing.T) {
	b := browser(t)
	server := write(t, cacheServer(), FormatHTML, Options{})
	comparison := write(t, diffOf(t, slowerServer(), cacheServer()), FormatHTML, Options{})

	t.Run("opens", func(t *testing.T) {
		p := open(t, b, ".html", server, "")
		p.screenshot("light")
		p.wants("title", p.eval("document.title"), "CPU time of cache-server")
		p.wants("facts", p.text("facts"), "10.5 s · 1\u202f000 samples · 10.0 s of CPU time (0.95 cores) · 2 threads")
		p.wants("notes", p.text("notes"), "0.6 % of the stacks incomplete: 4 × no unwind table, 2 × stack too deep")
		p.wants("details", p.text("details"), "10.0 s · 100.0 %")
		p.wants("legend", p.text("legend"), "cache-server40.6 %[kernel]36.0 %libc.so.623.0 %")
		p.wants("first function", p.eval("document.querySelector('#functions tbody tr').innerText.replace(/\\s+/g, ' ')"),
			"2.42 s 24.2 % 2.42 s 24.2 % dict_find cache-server dict.c:521")
		if got := p.eval("document.documentElement.dataset.theme"); got != "light" {
			t.Errorf("theme %s on a light system", got)
		}
	})

	t.Run("keys", func(t *testing.T) {
		p := open(t, b, ".html", server, "", calmSystem)
		p.run(chromedp.Focus("#view"))
		for _, step := range []struct{ key, name string }{
			{kb.ArrowDown, "_start"}, {kb.ArrowRight, "clone3"}, {kb.ArrowLeft, "_start"}, {kb.ArrowDown, "__libc_start_main"},
			{kb.ArrowDown, "main"}, {kb.ArrowDown, "event_loop"}, {kb.ArrowDown, "process_events"}, {kb.ArrowDown, "read_query"},
			{kb.ArrowRight, "write_reply"}, {kb.ArrowDown, "write"}, {kb.ArrowUp, "write_reply"},
		} {
			p.keys(step.key)
			if got, _, _ := strings.Cut(p.text("current"), ","); got != step.name {
				t.Fatalf("the focus is on %q, want %q", got, step.name)
			}
		}
		p.wants("details", p.text("details"), "write_replyCPU time1.60 s · 16.0 %of its caller18.2 %modulecache-serverlanguagecsourcenet.c:1811")
		for attribute, want := range map[string]string{"aria-level": "7", "aria-posinset": "2", "aria-setsize": "2", "aria-expanded": "true", "role": "treeitem"} {
			if got := p.eval("document.getElementById('current').getAttribute('" + attribute + "')"); got != want {
				t.Errorf("%s of the frame with the focus is %s, want %s", attribute, got, want)
			}
		}
		p.keys(kb.Enter)
		p.wants("crumbs", p.text("crumbs"), "all›_start›__libc_start_main›main›event_loop›process_events›write_reply")
		p.wants("scope", p.text("scope"), "6 functions below write_reply")
		p.screenshot("zoomed")
		// The frame fills the width now: its first callee is at both ends.
		if a, b := p.at(7, 0.01), p.at(7, 0.99); a != b {
			t.Errorf("write does not fill the row below: %v and %v", a, b)
		}
		p.keys(kb.Escape)
		p.wants("crumbs", p.eval("document.querySelector('#crumbs [aria-current]').textContent"), "process_events")
		p.keys(kb.Home)
		if got := p.text("crumbs"); got != "all" {
			t.Errorf("after Home zoomed to %q", got)
		}
		root := p.at(0, 0.5)
		p.keys("f")
		if a, b := p.at(11, 0.5), p.at(0, 0.5); a != root || b == root {
			t.Errorf("in a flame the bottom row is %v, the top row %v, want the root, %v, at the bottom", a, b, root)
		}
		p.keys(kb.ArrowUp)
		p.wants("focus in a flame", p.text("current"), "_start, ")
		p.screenshot("flame")
		p.keys("t")
		p.keys("t")
		p.keys("c")
		if got := p.eval("document.documentElement.dataset.theme + document.documentElement.className"); got != "darksafe" {
			t.Errorf("t twice and c: %s", got)
		}
		p.screenshot("flame-dark-safe")
		p.keys("?")
		if got := p.eval("document.getElementById('keys').open"); got != "true" {
			t.Error("? does not show the keys")
		}
		p.screenshot("keys")
		p.keys(kb.Escape)
		if got := p.eval("document.getElementById('keys').open"); got != "false" {
			t.Error("Escape does not hide the keys")
		}
		p.wants("address", p.eval("location.hash"), "view=flame&theme=dark&safe=1")
	})

	t.Run("search", func(t *testing.T) {
		p := open(t, b, ".html", server, "", calmSystem)
		p.slash()
		p.keys("^dict|malloc$")
		p.wants("found", p.text("found"), "39.2 % in 4 frames")
		p.wants("scope", p.text("scope"), "2 matching functions")
		p.screenshot("search")
		p.keys(kb.Enter)
		first := p.text("current")
		p.keys("n")
		if second := p.text("current"); second == first || !strings.HasPrefix(first, "dict_find") {
			t.Errorf("from match to match: %q, %q", first, second)
		}
		p.keys("N")
		if got := p.text("current"); got != first {
			t.Errorf("back at %q, want %q", got, first)
		}
		p.keys(kb.Escape)
		if got := p.text("found"); got != "" {
			t.Errorf("Escape leaves %q", got)
		}
		// A frame below another match counts once.
		p.slash()
		p.keys("main|write_reply")
		p.wants("found", p.text("found"), "99.4 % in 5 frames")
		p.keys(kb.Escape)
		p.slash()
		p.keys("(")
		p.wants("found", p.text("found"), "not a regular expression")
		if got := p.eval("document.getElementById('search').getAttribute('aria-invalid')"); got != "true" {
			t.Errorf("aria-invalid is %s", got)
		}
		p.keys(kb.Escape)
		p.run(chromedp.Click("#legend button:nth-child(2)"))
		p.wants("found", p.text("found"), "36.0 % in 8 frames")
		p.run(chromedp.Click("#functions tbody tr:nth-child(2) td.name button"))
		p.wants("search from the table", p.eval("document.getElementById('search').value"), "^tcp_sendmsg$")
		p.wants("found", p.text("found"), "16.0 % in 1 frame")
	})

	t.Run("mouse", func(t *testing.T) {
		p := open(t, b, ".html", server, "", calmSystem)
		x, y := p.point(10, 0.1)
		p.run(chromedp.MouseEvent(input.DispatchMouseEventTypeMouseMoved, x, y))
		p.wait("tip", "!document.getElementById('tip').hidden")
		p.wants("tip", p.text("tip"), "dict_findCPU time1.80 s · 18.0 %of its caller100.0 %itself1.80 s · 18.0 %modulecache-serverlanguagecsourcedict.c:521")
		p.screenshot("tip")
		p.run(chromedp.MouseClickXY(x, y))
		p.wants("crumbs", p.eval("document.querySelector('#crumbs [aria-current]').textContent"), "dict_find")
		p.run(chromedp.Click("#crumbs button:nth-of-type(2)"))
		p.wants("crumbs", p.text("crumbs"), "all›_start")
		p.run(chromedp.Click("#functions th:nth-child(3) button"))
		p.wants("first by total", p.eval("document.querySelector('#functions tbody td.name').textContent"), "_start")
	})

	t.Run("settings", func(t *testing.T) {
		light := open(t, b, ".html", server, "")
		bright := light.at(0, 0.9)
		p := open(t, b, ".html", server, "", darkSystem)
		p.screenshot("dark")
		if dark := p.at(0, 0.9); dark[1] >= bright[1]/2 {
			t.Errorf("the root is %v on a dark system, %v on a light one", dark, bright)
		}
		if got := p.eval("document.documentElement.dataset.theme"); got != "dark" {
			t.Errorf("theme %s on a dark system", got)
		}
		p = open(t, b, ".html", server, "#zoom=4&search=tcp&view=flame&color=lang&type=samples&theme=light&safe=1&sort=name")
		p.screenshot("light-safe")
		p.wants("crumbs", p.text("crumbs"), "all›_start›__libc_start_main›main›event_loop")
		p.wants("found", p.text("found"), "36.0 % in 2 frames")
		p.wants("details", p.text("details"), "Samples880 samples · 88.0 %")
		p.wants("legend", p.text("legend"), "kernel36.0 %")
		p = open(t, b, ".html", server, "#zoom=999&view=x&color=y&type=z&theme=q")
		p.wants("details after nonsense in the address", p.text("details"), "all")
	})

	t.Run("window", func(t *testing.T) {
		// Frames from the root to the leaf are higher than the window.
		deep := newBuilder()
		deep.sample(10, "main; "+strings.Repeat("again; ", 60)+"leaf")
		p := open(t, b, ".html", write(t, deep.p, FormatHTML, Options{}), "")
		fits := "(() => { const c = document.getElementById('canvas'), v = document.getElementById('view'); return c.clientHeight === v.clientHeight && c.height === c.clientHeight * devicePixelRatio; })()"
		for _, height := range []int64{700, 1100, 500} {
			p.run(chromedp.EmulateViewport(1200, height))
			p.wait("the canvas fills the view", fits)
		}
		p.run(chromedp.Focus("#view"))
		p.slash()
		p.keys("leaf")
		p.keys(kb.Enter)
		p.wants("focus", p.text("current"), "leaf, ")
		if got := p.eval("document.getElementById('view').scrollTop > 800"); got != "true" {
			t.Errorf("the focus is out of sight: scrolled to %s", p.eval("document.getElementById('view').scrollTop"))
		}
	})

	t.Run("comparison", func(t *testing.T) {
		p := open(t, b, ".html", comparison, "", calmSystem)
		p.screenshot("comparison")
		p.wants("facts", p.text("facts"), "shares are of each profile’s own total")
		p.wants("legend", p.text("legend"), "less in the new profilemore in the new profile than in the base")
		p.wants("first change", p.eval("document.querySelector('#functions tbody tr').innerText.replace(/\\s+/g, ' ')"), "52.1 % +27.9 pp 52.1 % +27.9 pp dict_find")
		red := func(c [3]int) bool { return c[0] > c[2]+60 }
		blue := func(c [3]int) bool { return c[2] > c[0]+30 }
		if c := p.at(10, 0.1); !red(c) {
			t.Errorf("dict_find, which grew, is %v", c)
		}
		if c := p.at(10, 0.72); !blue(c) {
			t.Errorf("what shrank is %v", c)
		}
		p.slash()
		p.keys("parse_query")
		p.wants("found in the new profile", p.text("found"), "0.0 % in 1 frame")
		p.keys(kb.Escape)
		p.keys("b")
		p.slash()
		p.keys("parse_query")
		p.wants("found in the base", p.text("found"), "9.0 % in 1 frame")
		p.keys(kb.Enter)
		p.wants("gone", p.text("details"), "new0 ns · 0.0 %base900 ms · 9.0 %change−9.0 pp · gone")
		p.keys(kb.Escape)
		p.keys("b")
		p.keys("c")
		if c := p.at(10, 0.1); !(c[0] > c[1] && c[1] > c[2]+40) {
			t.Errorf("for the colour-blind what grew is %v, want orange", c)
		}
		p.screenshot("comparison-safe")
		p = open(t, b, ".html", comparison, "", darkSystem)
		p.screenshot("comparison-dark")
		if c, d := p.at(10, 0.1), p.at(10, 0.72); !red(c) || !blue(d) {
			t.Errorf("on a dark system grown is %v, shrunk %v", c, d)
		}
	})

	t.Run("hostile names", func(t *testing.T) {
		p := open(t, b, ".html", write(t, polyglot(), FormatHTML, Options{Title: "<script>alert(3)</script>"}), "")
		p.screenshot("polyglot")
		p.wants("title", p.eval("document.querySelector('h1').textContent"), "<script>alert(3)</script>")
		if got := p.eval("document.querySelectorAll('img, b:not(#tip b, #details b), script').length"); got != "2" {
			t.Errorf("%s elements, want the page's own two scripts", got)
		}
		all := p.text("functions")
		for _, name := range []string{"</script><script>alert(1)</script>", "<img src=x onerror=alert(2)>;x", "]]><!--&amp;{{data}}\"'`$&\ufffd\ufffd[31m"} {
			p.wants("table", all, name)
		}
		p.keys("o")
		p.wants("packages", p.text("legend"), "github.com/acme/shop/cart")
		p.keys("o")
		p.wants("languages", p.text("legend"), "go25.0 %rust20.8 %c++16.7 %python8.3 %erlang7.5 %javascript6.7 %")
	})

	t.Run("screen readers", func(t *testing.T) {
		p := open(t, b, ".html", server, "")
		p.run(chromedp.Focus("#view"))
		p.keys(kb.ArrowDown)
		tree, err := chromedp.Call(p.ctx, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]string{}
		for _, n := range tree.Nodes {
			if n.Ignored || n.Role == nil {
				continue
			}
			role, name := axText(n.Role), axText(n.Name)
			switch role {
			case "button", "combobox", "searchbox", "tree", "toolbar", "columnheader":
				if name == "" {
					t.Errorf("a %s without a name", role)
				}
			}
			seen[role] += name + "\n"
		}
		for role, want := range map[string]string{
			"tree": "Flame graph: arrows move", "treeitem": "_start, CPU time 8.80 s · 88.0 %", "searchbox": "Search functions by regular expression",
			"navigation": "Zoomed to", "heading": "CPU time of cache-server",
		} {
			p.wants(role, seen[role], want)
		}
	})

	t.Run("image", func(t *testing.T) {
		p := open(t, b, ".svg", write(t, cacheServer(), FormatSVG, Options{}), "")
		p.screenshot("svg")
		label := "document.activeElement.querySelector('title').textContent.split('\\n')[0]"
		p.eval("document.querySelector('#frames g').focus()")
		for _, step := range []struct{ key, name string }{
			{kb.ArrowUp, "_start"}, {kb.ArrowRight, "clone3"}, {kb.ArrowUp, "start_thread"}, {kb.ArrowDown, "clone3"}, {kb.Enter, "clone3"},
		} {
			p.keys(step.key)
			if got := p.eval(label); got != step.name {
				t.Fatalf("the focus is on %q, want %q", got, step.name)
			}
		}
		if got := p.eval("Math.round(document.activeElement.querySelector('rect').getAttribute('width'))"); got != "1180" {
			t.Errorf("zoomed to a width of %s", got)
		}
		p.wants("what is said", p.text("said"), "clone3 · 1.14 s, 11.4 % · libc.so.6")
		p.keys(kb.Escape)
		p.eval("document.documentElement.searchFrames('dict')")
		p.wants("found", p.text("found"), "24.2 % in 3 frames")
		p.screenshot("svg-search")
		open(t, b, ".svg", write(t, polyglot(), FormatSVG, Options{}), "")
		p = open(t, b, ".svg", write(t, diffOf(t, slowerServer(), cacheServer()), FormatSVG, Options{}), "", darkSystem)
		p.screenshot("svg-comparison-dark")
	})
}

func axText(v *accessibility.Value) string {
	if v == nil {
		return ""
	}
	var text string
	if err := json.Unmarshal(v.Value, &text); err != nil {
		return string(v.Value)
	}
	return text
}

// TestLargeFlameGraph opens the graph of a million samples, with more frames
// than a page takes.
func TestLargeFlameGraph(t *testing.T) {
	b := browser(t)
	p := manyStacks(1_000_000, 100_000, 24)
	start := time.Now()
	text := write(t, p, FormatHTML, Options{})
	t.Logf("written in %v: %d MiB", time.Since(start), len(text)>>20)
	if len(text) > 16<<20 {
		t.Errorf("the page has %d MiB", len(text)>>20)
	}
	start = time.Now()
	page := open(t, b, ".html", text, "")
	page.wants("notes", page.text("notes"), "of the whole or less each are left out; their values count for their callers")
	page.wants("details", page.text("details"), "100.0 %")
	t.Logf("open after %v", time.Since(start))
	page.screenshot("large")
	// What the page does for a key or a click has to be done before the
	// next frame or so is drawn; here with what it takes in a test machine.
	for what, js := range map[string]string{
		"search": "(() => { const s = document.getElementById('search'); s.value = 'function_[ab]'; s.dispatchEvent(new Event('input')); })()",
		"zoom":   "document.getElementById('view').dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', bubbles: true}))",
		"flip":   "document.getElementById('flip').click()",
	} {
		ms := evaluate[float64](page, "(() => { const t = performance.now(); "+js+"; return performance.now() - t; })()")
		t.Logf("%s: %.0f ms", what, ms)
	}
	page.wants("found", page.text("found"), " frames")
}
