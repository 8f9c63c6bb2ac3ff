package symbolizer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// split is a stripped program and what was split off it.
func split(t testing.TB) (stripped, debug, id string) {
	whole := compile(t, "funcs.c", "-g", "-pie", "-fPIE")
	debug = derive(t, whole, "debug", "objcopy", "--only-keep-debug", "IN", "OUT")
	stripped = derive(t, whole, "stripped", "strip", "-o", "OUT", "IN")
	return stripped, debug, open(t, stripped, Options{NoDebugFiles: true}).BuildID
}

func search(t testing.TB, s DebugSearch) {
	SetDebugSearch(s)
	t.Cleanup(func() { debugSearch.Store(nil) })
}

// checkDebugInfo: the program's names and lines come from its debug file.
func checkDebugInfo(t testing.TB, path string, want bool) {
	t.Helper()
	b := open(t, path, Options{DebugDirs: []string{}})
	for _, f := range functions(t, b) {
		if f.Symbol != "hidden_static" {
			continue
		}
		if !want {
			t.Error("a debug file was found")
		}
		if file, line := b.Line(f.Addr); f.Source != SourceDebugFile || filepath.Base(file) != "funcs.c" || line == 0 {
			t.Errorf("hidden_static is from %s at %s:%d", f.Source, file, line)
		}
		return
	}
	if want {
		t.Error("no debug file was found")
	}
}

func TestSymbolDirs(t *testing.T) {
	stripped, debug, id := split(t)
	whole := compile(t, "funcs.c", "-g", "-pie", "-fPIE")
	checkDebugInfo(t, stripped, false)
	for _, c := range []struct{ name, file string }{
		{".build-id/" + id[:2] + "/" + id[2:] + ".debug", debug},
		{id, debug},
		{id + ".debug", debug},
		{filepath.Base(stripped), whole},
		{filepath.Base(stripped) + ".debug", debug},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			copyFile(t, c.file, filepath.Join(dir, c.name))
			search(t, DebugSearch{Dirs: []string{t.TempDir(), dir}})
			checkDebugInfo(t, stripped, true)
		})
	}
	t.Run("another build", func(t *testing.T) {
		dir := t.TempDir()
		copyFile(t, compile(t, "funcs.c", "-g", "-no-pie", "-fno-pie"), filepath.Join(dir, filepath.Base(stripped)))
		search(t, DebugSearch{Dirs: []string{dir}})
		checkDebugInfo(t, stripped, false)
	})
}

// debuginfodServer serves files by "BUILDID/KIND" and counts requests.
type debuginfodServer struct {
	*httptest.Server
	files    map[string]string
	requests atomic.Int32
}

func serveDebuginfod(t testing.TB, files map[string]string) *debuginfodServer {
	s := &debuginfodServer{files: files}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		path, ok := s.files[strings.TrimPrefix(r.URL.Path, "/buildid/")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		http.ServeFile(w, r, path)
	}))
	t.Cleanup(s.Close)
	return s
}

func debuginfodEnv(t testing.TB, servers ...string) func(string) string {
	env := map[string]string{"DEBUGINFOD_URLS": strings.Join(servers, " "), "XDG_CACHE_HOME": t.TempDir()}
	return func(name string) string { return env[name] }
}

func TestDebuginfod(t *testing.T) {
	stripped, debug, id := split(t)
	empty := serveDebuginfod(t, nil)
	server := serveDebuginfod(t, map[string]string{id + "/debuginfo": debug, id + "/executable": stripped})
	d := NewDebuginfod(debuginfodEnv(t, empty.URL, server.URL+"/"))
	var begun atomic.Int32
	d.Begin = func(what string) (context.Context, func(error)) {
		if !strings.Contains(what, id) || !strings.Contains(what, "debuginfo of prog") && begun.Load() == 0 {
			t.Errorf("download of %s", what)
		}
		begun.Add(1)
		return context.Background(), func(err error) {
			if err != nil {
				t.Error(err)
			}
		}
	}
	search(t, DebugSearch{Debuginfod: d})
	checkDebugInfo(t, stripped, true)
	checkDebugInfo(t, stripped, true)
	if n, m := server.requests.Load(), empty.requests.Load(); n != 1 || m != 1 || begun.Load() != 1 {
		t.Errorf("%d and %d requests for one file, %d downloads", m, n, begun.Load())
	}
	if path, err := d.Find(id, Executable, "prog"); err != nil || filepath.Base(path) != Executable {
		t.Errorf("executable: %s, %v", path, err)
	}
	// Another client, and one of the elfutils, use what is there.
	again := &Debuginfod{Servers: []string{empty.URL}, Shared: []string{d.Dir}, Dir: t.TempDir()}
	if path, err := again.Find(id, DebugInfo, "prog"); err != nil || !strings.HasPrefix(path, d.Dir) {
		t.Errorf("%s, %v", path, err)
	}

	// What no server has is asked for once in a while only.
	missing := strings.Repeat("ab", 20)
	d.Begin = nil
	before := server.requests.Load()
	for range 3 {
		if _, err := d.Find(missing, DebugInfo, "prog"); !errors.Is(err, ErrNotServed) {
			t.Errorf("%v", err)
		}
	}
	if n := server.requests.Load() - before; n != 1 {
		t.Errorf("%d requests for a file that is not there", n)
	}
	d.Missing = time.Nanosecond
	if _, err := d.Find(missing, DebugInfo, "prog"); !errors.Is(err, ErrNotServed) || server.requests.Load()-before != 2 {
		t.Errorf("%v after %d requests", err, server.requests.Load()-before)
	}
	if _, err := d.Find("../../etc", DebugInfo, "prog"); !errors.Is(err, ErrMalformed) {
		t.Errorf("%v", err)
	}
}

// TestDebuginfodOnce: a file that many ask for at a time is fetched once.
func TestDebuginfodOnce(t *testing.T) {
	_, debug, id := split(t)
	server := serveDebuginfod(t, map[string]string{id + "/debuginfo": debug})
	d := NewDebuginfod(debuginfodEnv(t, server.URL))
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			if _, err := d.Find(id, DebugInfo, "prog"); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := server.requests.Load(); n != 1 {
		t.Errorf("%d requests", n)
	}
}

// TestDebuginfodFaults: servers that are down, slow, wrong or send too much.
func TestDebuginfodFaults(t *testing.T) {
	_, debug, id := split(t)
	other := derive(t, compile(t, "funcs.c", "-g", "-no-pie", "-fno-pie"), "debug", "objcopy", "--only-keep-debug", "IN", "OUT")
	good := serveDebuginfod(t, map[string]string{id + "/debuginfo": debug})
	wrong := serveDebuginfod(t, map[string]string{id + "/debuginfo": other})
	closed := httptest.NewServer(nil)
	closed.Close()
	release := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "\x7fELF")
		w.(http.Flusher).Flush()
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	failing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "busy", http.StatusServiceUnavailable) }))
	t.Cleanup(func() { close(release); slow.Close(); failing.Close() })

	// A good one after them is found all the same.
	d := NewDebuginfod(debuginfodEnv(t, closed.URL, failing.URL, wrong.URL, slow.URL, good.URL))
	d.Timeout = 200 * time.Millisecond
	if _, err := d.Find(id, DebugInfo, "prog"); err != nil {
		t.Error(err)
	}
	if len(d.down) != 2 {
		t.Errorf("servers not asked again: %v", d.down)
	}
	left, _ := filepath.Glob(filepath.Join(d.Dir, "*", ".download-*"))
	if len(left) != 0 {
		t.Errorf("left over: %q", left)
	}

	// Without a good one, the fault is no proof that there is nothing.
	for _, c := range []struct {
		url  string
		want error
	}{{closed.URL, errServerDown}, {slow.URL, errServerDown}, {wrong.URL, ErrMalformed}, {failing.URL, nil}} {
		d := NewDebuginfod(debuginfodEnv(t, c.url))
		d.Timeout = 200 * time.Millisecond
		_, err := d.Find(id, DebugInfo, "prog")
		if err == nil || errors.Is(err, ErrNotServed) || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), "http://") {
			t.Errorf("%s: %v", c.url, err)
		}
	}
	small := NewDebuginfod(debuginfodEnv(t, good.URL))
	small.MaxSize = 100
	if _, err := small.Find(id, DebugInfo, "prog"); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a file above the limit: %v", err)
	}
}

// TestDebuginfodCancelled: one cancelled download is the last.
func TestDebuginfodCancelled(t *testing.T) {
	_, _, id := split(t)
	ctx, cancel := context.WithCancel(context.Background())
	asked := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
	}))
	t.Cleanup(server.Close)
	d := NewDebuginfod(debuginfodEnv(t, server.URL))
	d.Begin = func(string) (context.Context, func(error)) { return ctx, func(error) {} }
	go func() {
		<-asked
		cancel()
	}()
	for range 2 {
		if _, err := d.Find(id, DebugInfo, "prog"); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	}
}

func TestDebuginfodEnvironment(t *testing.T) {
	env := map[string]string{}
	getenv := func(name string) string { return env[name] }
	if d := NewDebuginfod(getenv); d != nil {
		t.Errorf("without DEBUGINFOD_URLS: %+v", d)
	}
	env["DEBUGINFOD_URLS"] = "  ima:enforcing "
	if d := NewDebuginfod(getenv); d != nil {
		t.Errorf("without a server: %+v", d)
	}
	env = map[string]string{
		"DEBUGINFOD_URLS": "https://one/ http://two:8002/x", "DEBUGINFOD_TIMEOUT": "7", "DEBUGINFOD_MAXSIZE": "1000",
		"HOME": "/home/u", "DEBUGINFOD_CACHE_PATH": "/var/cache/d",
	}
	d := NewDebuginfod(getenv)
	if d == nil || fmt.Sprint(d.Servers) != "[https://one http://two:8002/x]" || d.Timeout != 7*time.Second || d.MaxSize != 1000 ||
		d.Dir != "/home/u/.cache/sbxtrace/debuginfod" || fmt.Sprint(d.Shared) != "[/var/cache/d /home/u/.cache/debuginfod_client]" {
		t.Errorf("%+v", d)
	}
	if _, err := (&Debuginfod{Servers: []string{"http://127.0.0.1:1"}}).Find(strings.Repeat("ab", 20), DebugInfo, "prog"); !errors.Is(err, ErrNotServed) {
		t.Errorf("without a place to keep files: %v", err)
	}
	if _, err := os.Stat("/home/u"); err == nil {
		t.Error("directories were made")
	}
}
