package tests

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/sbxtrace/sbxtrace/symbolizer"
)

const nginxConf = `
daemon off;
user nobody nogroup;
worker_processes 2;
pid %[1]s/pid;
error_log %[1]s/error.log;
events { worker_connections 64; }
http {
	access_log off;
	client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
	server {
		listen 127.0.0.1:%[2]s;
		root %[1]s/html;
	}
}
`

// nginx is a running nginx: a master and two workers.
type nginx struct {
	*server
	port string
}

// startNginx starts Debian's nginx, or a copy of it that nobody else runs.
func startNginx(t testing.TB, program string) *nginx {
	t.Helper()
	needRoot(t)
	dir, port := dirFor(t, "nobody"), freePort(t)
	if err := os.Mkdir(filepath.Join(dir, "html"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"nginx.conf": fmt.Sprintf(nginxConf, dir, port), "html/index.html": "hello\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	n := &nginx{port: port}
	n.server = serve(t, "", func() bool { return accepts(port) },
		program, "-c", filepath.Join(dir, "nginx.conf"), "-e", filepath.Join(dir, "error.log"))
	return n
}

// workers are the master's children.
func (n *nginx) workers() []int {
	n.t.Helper()
	workers, err := symbolizer.Children(n.pid())
	if err != nil {
		n.t.Fatal(err)
	}
	return workers
}

// get makes requests, each on a connection of its own.
func (n *nginx) get(requests int) {
	n.t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: stuck}
	for range requests {
		answer, err := client.Get("http://127.0.0.1:" + n.port + "/")
		if err != nil {
			n.t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil || string(body) != "hello\n" {
			n.t.Fatalf("answer %q, %v", body, err)
		}
	}
}

// One --pid is enough for a server of several processes: the workers that are
// there, and those that a reload starts.
func TestNginx(t *testing.T) {
	t.Parallel()
	const before, after = 40, 30
	// Workers of a program that others run too get their probes some milliseconds
	// after they were started; here not one call is missed.
	own := filepath.Join(t.TempDir(), "nginx")
	copyFile(t, needTool(t, "nginx"), own)
	n := startNginx(t, own)
	old := n.workers()
	s := attach(t, n.pid(), "ngx_http_create_request", "ngx_http_process_request", "ngx_http_free_request", "ngx_event_accept",
		"ngx_single_process_cycle", "ngx_worker_process_*", "ngx_init_cycle", "nginx+*")
	n.get(before)
	if err := n.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the reload", func() bool {
		now := n.workers()
		for _, w := range now {
			for _, o := range old {
				if w == o {
					return false
				}
			}
		}
		return len(now) == len(old)
	})
	n.get(after)
	fresh := n.workers()
	result := s.stop()

	if result.totals.Lost != 0 {
		t.Errorf("%d events lost", result.totals.Lost)
	}
	byWorker := map[int]int{}
	counts := map[string]int{}
	for _, c := range result.calls {
		counts[c.Func]++
		if c.Func == "ngx_http_process_request" {
			byWorker[c.PID]++
		}
	}
	for _, name := range []string{"ngx_http_create_request", "ngx_http_process_request", "ngx_http_free_request"} {
		if counts[name] != before+after {
			t.Errorf("%s: %d calls for %d requests", name, counts[name], before+after)
		}
	}
	if counts["ngx_init_cycle"] != 1 {
		t.Errorf("the master was seen to read its configuration %d times, it did once", counts["ngx_init_cycle"])
	}
	sum := func(pids []int) (n int) {
		for _, pid := range pids {
			n += byWorker[pid]
		}
		return n
	}
	if sum(old) != before || sum(fresh) != after {
		t.Errorf("%d requests of workers %v, want %d; %d of %v, want %d", sum(old), old, before, sum(fresh), fresh, after)
	}
	if !slicesContainPrefix(counts, "nginx+0x") {
		t.Error("no function without a name was called")
	}
}

func slicesContainPrefix(counts map[string]int, prefix string) bool {
	for name := range counts {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// The bare command shows a request from the accepting of the connection on, with
// its callers and callees, and says which worker it was.
func TestNginxBare(t *testing.T) {
	t.Parallel()
	n := startNginx(t, "nginx")
	s, view := bareAttach(t, n.pid())
	s.waitAttached()
	n.get(1)
	s.waitView(view, "ngx_http_finalize_request")
	got := s.stopView(view)
	for _, text := range []string{"┌ nginx\n", "ngx_event_accept() {\n", "} ngx_http_process_request\n", "FUNCTION"} {
		if !strings.Contains(got, text) {
			t.Errorf("the view has no %q", text)
		}
	}
	of := 0
	for _, w := range n.workers() {
		if strings.Contains(got, strconv.Itoa(w)+" │") {
			of++
		}
	}
	if of == 0 {
		t.Error("the view names no worker")
	}
	if !strings.Contains(s.stderr.String(), "of 3 processes") {
		t.Errorf("sbxtrace said %q", s.stderr)
	}
	for line := range strings.Lines(got) {
		if strings.HasPrefix(line, "≤") && !strings.Contains(line, "ngx_chain_update_sent") {
			t.Errorf("a call has no proper end: %s", line)
		}
	}
}
