package exporter

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	cdpruntime "github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// action is a step in the browser.
type action = chromedp.Action[chromedp.Void]

// browser starts headless Chromium once for all tests of a run.
func browser(t *testing.T) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("no chromium here: scripts/install-test-deps.sh installs it")
	}
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck, chromedp.Headless, chromedp.NoSandbox,
		chromedp.DisableGPU, chromedp.WindowSize(1300, 900), chromedp.UserDataDir(t.TempDir()),
		chromedp.WSURLReadTimeout(time.Minute),
	}
	for _, flag := range []string{
		"disable-quic", "disable-background-networking", "disable-component-update", "disable-sync", "disable-extensions",
		"disable-dev-shm-usage", "hide-scrollbars", "disable-crash-reporter",
	} {
		options = append(options, chromedp.Flag(flag, true))
	}
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx, chromedp.Navigate("about:blank")); err != nil {
		t.Fatalf("start chromium: %v", err)
	}
	return ctx
}

// tab is a page under test.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	troubles []string
}

// open opens a page, whose file's name ends so, and sees to it that it loads
// nothing, asks nothing and complains of nothing.
func open(t *testing.T, browser context.Context, ending string, content []byte, hash string, before ...action) *tab {
	t.Helper()
	file := filepath.Join(t.TempDir(), "page"+ending)
	if err := os.WriteFile(file, content, 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := chromedp.NewContext(browser, chromedp.WithNewBrowserContext())
	ctx, cancelTime := context.WithTimeout(ctx, 2*time.Minute)
	p := &tab{t: t, ctx: ctx}
	t.Cleanup(func() {
		cancelTime()
		cancel()
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, trouble := range p.troubles {
			t.Error(trouble)
		}
	})
	trouble := func(format string, args ...any) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.troubles = append(p.troubles, fmt.Sprintf(format, args...))
	}
	listen := func(e any) {
		switch e := e.(type) {
		case *cdpruntime.EventExceptionThrown:
			trouble("exception: %v", e.ExceptionDetails)
		case *cdpruntime.EventConsoleAPICalled:
			trouble("console: %s %v", e.Type, e.Args)
		case *cdplog.EventEntryAdded:
			// The tests read pixels back; the page does not.
			if !strings.Contains(e.Entry.Text, "willReadFrequently") {
				trouble("log: %s", e.Entry.Text)
			}
		case *network.EventRequestWillBeSent:
			if !strings.HasPrefix(e.Request.URL, "file://"+file) && !strings.HasPrefix(e.Request.URL, "data:") {
				trouble("the page loads %s", e.Request.URL)
			}
		case *page.EventJavascriptDialogOpening:
			trouble("a dialog: %s", e.Message)
			go chromedp.Call(ctx, page.HandleJavaScriptDialog, page.HandleJavaScriptDialogParams{})
		}
	}
	p.run(chromedp.Navigate("about:blank"))
	if err := chromedp.Listen(ctx, listen); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Call(ctx, network.Enable, network.EnableParams{}); err != nil {
		t.Fatal(err)
	}
	p.run(append(before, chromedp.Navigate("file://"+file+hash))...)
	return p
}

func (p *tab) run(actions ...action) {
	p.t.Helper()
	if err := chromedp.Do(p.ctx, actions...); err != nil {
		p.t.Fatal(err)
	}
}

// eval returns what an expression gives, as text.
func (p *tab) eval(js string) string {
	p.t.Helper()
	return evaluate[string](p, "String("+js+")")
}

// evaluate returns what an expression gives.
func evaluate[T any](p *tab, js string) T {
	p.t.Helper()
	out, err := chromedp.Run(p.ctx, chromedp.Evaluate[T](js))
	if err != nil {
		p.t.Fatalf("%s: %v", js, err)
	}
	return out
}

// text returns the text of an element.
func (p *tab) text(id string) string {
	p.t.Helper()
	return p.eval("document.getElementById('" + id + "').textContent")
}

// wait waits until a condition holds.
func (p *tab) wait(what, js string) {
	p.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for p.eval(js) != "true" {
		if time.Now().After(deadline) {
			p.t.Fatalf("%s: %s stays %s", what, js, p.eval(js))
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (p *tab) keys(keys string) {
	p.t.Helper()
	p.run(chromedp.KeyEvent(keys))
}

// slash types a slash as a keyboard does: a page that takes the key gets no
// character of it.
func (p *tab) slash() {
	p.t.Helper()
	p.run(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, input.DispatchKeyEvent, input.DispatchKeyEventParams{
			Type: input.DispatchKeyEventTypeKeyDown, Key: "/", Text: "/",
		})
		return err
	}))
}

func (p *tab) wants(what, got, want string) {
	p.t.Helper()
	if !strings.Contains(got, want) {
		p.t.Errorf("%s says %q, want %q", what, got, want)
	}
}

// at returns the colour of a point of the graph as red, green and blue. The
// point is in the row, from the top, at a share of the width.
func (p *tab) at(row int, share float64) [3]int {
	p.t.Helper()
	return evaluate[[3]int](p, fmt.Sprintf(`(() => {
		const c = document.getElementById('canvas'), r = window.devicePixelRatio;
		return [...c.getContext('2d').getImageData(Math.round(c.width * %g), Math.round((%d * 21 + 3) * r), 1, 1).data].slice(0, 3);
	})()`, share, row))
}

// hover moves the mouse to a point of the graph as at has it.
func (p *tab) point(row int, share float64) (x, y float64) {
	p.t.Helper()
	at := evaluate[[2]float64](p, fmt.Sprintf(`(() => {
		const r = document.getElementById('canvas').getBoundingClientRect();
		return [r.left + r.width * %g, r.top + %d * 21 + 10];
	})()`, share, row))
	return at[0], at[1]
}

// screenshot keeps a picture of the page where SBXTRACE_SCREENSHOTS names a
// folder, to be looked at.
func (p *tab) screenshot(name string) {
	p.t.Helper()
	dir := os.Getenv("SBXTRACE_SCREENSHOTS")
	if dir == "" {
		return
	}
	png, err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// darkSystem has the page see a system whose setting is dark.
var darkSystem = system("prefers-color-scheme", "dark")

// calmSystem has the page see a system that asks for less motion.
var calmSystem = system("prefers-reduced-motion", "reduce")

func system(feature, value string) action {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: feature, Value: value}},
		})
		return err
	})
}
