package tests

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sbxtrace/sbxtrace/internal/targets"
)

// The go command itself, from its first call: the functions of its packages, of
// which none belongs to a main module.
func TestGoCommand(t *testing.T) {
	t.Parallel()
	gocmd := needTool(t, "go")
	want := output(t, gocmd, "version")
	s := sbxtrace(t, "run", "--", gocmd, "version")
	result := s.wait()
	if got := s.stdout.String(); got != want {
		t.Errorf("go version printed %q, without sbxtrace %q", got, want)
	}
	result.complete(t)
	counts := result.counts()
	for _, name := range []string{"main.main", "main.invoke", "cmd/go/internal/version.runVersion"} {
		if counts[name] != 1 {
			t.Errorf("%s: %d calls, want 1", name, counts[name])
		}
	}
	edges := result.namedEdges()
	if edges[[2]string{"main.main", "main.invoke"}] != 1 || edges[[2]string{"main.invoke", "cmd/go/internal/version.runVersion"}] != 1 {
		t.Errorf("the tree is not main.main, main.invoke, version.runVersion")
	}
	for name := range counts {
		if !strings.HasPrefix(name, "main.") && !strings.HasPrefix(name, "cmd/go/") {
			t.Errorf("%s is none of the go command's own", name)
		}
	}
}

// The view of a run, beside what the command prints.
func TestGoCommandBare(t *testing.T) {
	t.Parallel()
	gocmd := needTool(t, "go")
	view := filepath.Join(t.TempDir(), "view.txt")
	s := typed("run", "-o", view, "--", gocmd, "version").gives(t, 0, "sbxtrace: attached: ")
	if !strings.HasPrefix(s.stdout.String(), "go version ") {
		t.Errorf("go version printed %q", s.stdout)
	}
	got, err := os.ReadFile(view)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{" g1 │ main.main() {\n", "cmd/go/internal/version.runVersion", "FUNCTION"} {
		if !strings.Contains(string(got), text) {
			t.Errorf("the view has no %q:\n%s", text, got)
		}
	}
}

const nodeServer = `
const http = require('http');
http.createServer((q, r) => { r.end(JSON.stringify({ path: q.url })); }).listen(+process.argv[2], '127.0.0.1');
`

// Node, a program of 100 MB with more functions than the programs have room for
// by default.
func TestNode(t *testing.T) {
	t.Parallel()
	needRoot(t)
	node := needTool(t, "node")
	script := filepath.Join(dirFor(t, "nobody"), "server.js")
	if err := os.WriteFile(script, []byte(nodeServer), 0o644); err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	n := serve(t, "nobody", func() bool { return accepts(port) }, node, script, port)
	get := func(times int) {
		t.Helper()
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: stuck}
		for i := range times {
			answer, err := client.Get(fmt.Sprintf("http://127.0.0.1:%s/%d", port, i))
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(answer.Body)
			answer.Body.Close()
			if want := fmt.Sprintf(`{"path":"/%d"}`, i); err != nil || string(body) != want {
				t.Fatalf("answer %q, %v; want %q", body, err, want)
			}
		}
	}

	all := listed(t, "--pid", fmt.Sprint(n.pid()))
	if len(all) < 50_000 {
		t.Errorf("%d functions", len(all))
	}
	const onConnection = "node::ConnectionWrap<node::TCPWrap, uv_tcp_s>::OnConnection"
	// V8 walks the stack in its garbage collection: no return probe may be in its way.
	if f := all[onConnection]; f.Lang != "c++" || f.Returns == nil || f.Returns.Method != "ret" {
		t.Errorf("%s: %+v", onConnection, f)
	}

	const requests = 25
	s := attach(t, n.pid(), onConnection, "node::*Parser::on_message_complete")
	get(requests)
	result := s.stop()
	result.complete(t)
	if counts := result.counts(); counts[onConnection] != requests {
		t.Errorf("%s: %d calls for %d connections: %v", onConnection, counts[onConnection], requests, counts)
	}

	bare, view := bareAttach(t, n.pid())
	bare.waitAttached()
	get(5)
	bare.waitView(view, "} "+onConnection)
	bare.stopView(view)
	get(5)
	intact(t, n.pid())
}

// erlangProgram calls functions of its virtual machine a known number of times,
// and speaks the protocol of the other targets.
const erlangProgram = `
io:format("READY ~s~n", [os:getpid()]),
"go\n" = io:get_line(""),
[erlang:crc32(<<"message">>) || _ <- lists:seq(1, 777)],
Self = self(),
Echo = spawn(fun Loop() -> receive {From, X} -> From ! X, Loop() end end),
[begin Echo ! {Self, I}, receive I -> ok end end || I <- lists:seq(1, 500)],
io:format("{}~n"),
io:get_line(""),
halt().
`

// The virtual machine of Erlang, which compiles to machine code at run time and
// runs that on stacks of its own.
func TestErlang(t *testing.T) {
	t.Parallel()
	needRoot(t)
	cmd := exec.Command(needTool(t, "erl"), "-noshell", "-eval", erlangProgram)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	p := targets.StartCmd(t, cmd)
	s := attach(t, p.Ready(), "crc32_1", "erts_send_message", "erts_schedule")
	p.Go()
	p.Truth()
	if err := p.Quit(); err != nil {
		t.Error(err)
	}
	result := s.wait()
	if result.totals.Lost != 0 {
		t.Errorf("%d events lost", result.totals.Lost)
	}
	counts := result.counts()
	if counts["crc32_1"] != 777 {
		t.Errorf("crc32_1: %d calls, want 777", counts["crc32_1"])
	}
	if counts["erts_send_message"] < 1000 || counts["erts_schedule"] < 500 {
		t.Errorf("%d messages, %d times scheduled; there were 1000 messages to and fro", counts["erts_send_message"], counts["erts_schedule"])
	}
}
