package tests

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func unmarshal(text string, v any) error { return json.Unmarshal([]byte(text), v) }

// redis is a running redis-server.
type redis struct {
	*server
	port string
}

func startRedis(t testing.TB) *redis {
	t.Helper()
	needRoot(t)
	port := freePort(t)
	dir := dirFor(t, "nobody")
	s := serve(t, "nobody", func() bool { return accepts(port) },
		"redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", dir)
	return &redis{s, port}
}

// command sends a command without arguments that contain blanks and returns the
// text of its answer.
func (r *redis) command(line string) string {
	r.t.Helper()
	c, err := net.Dial("tcp", "127.0.0.1:"+r.port)
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(stuck))
	if _, err := fmt.Fprintf(c, "%s\r\n", line); err != nil {
		r.t.Fatal(err)
	}
	answer := bufio.NewReader(c)
	head, err := answer.ReadString('\n')
	if err != nil {
		r.t.Fatalf("%s: %v", line, err)
	}
	size, ok := strings.CutPrefix(head, "$")
	if !ok {
		return strings.TrimSpace(head)
	}
	n, err := strconv.Atoi(strings.TrimSpace(size))
	if err != nil {
		r.t.Fatal(err)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(answer, text); err != nil {
		r.t.Fatalf("%s: %v", line, err)
	}
	return string(text)
}

// calls are the server's own counters: calls by command, and of all together
// those that were processed. The command that asks is not among them.
func (r *redis) calls() (byCommand map[string]uint64, all uint64) {
	r.t.Helper()
	byCommand = map[string]uint64{}
	for line := range strings.Lines(r.command("INFO ALL")) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if key == "total_commands_processed" {
			all, _ = strconv.ParseUint(value, 10, 64)
		}
		if name, ok := strings.CutPrefix(key, "cmdstat_"); ok {
			number, _, _ := strings.Cut(strings.TrimPrefix(value, "calls="), ",")
			byCommand[name], _ = strconv.ParseUint(number, 10, 64)
		}
	}
	return byCommand, all
}

func (r *redis) benchmark(requests int, tests string) {
	r.t.Helper()
	output(r.t, needTool(r.t, "redis-benchmark"), "-p", r.port, "-q", "-n", strconv.Itoa(requests), "-c", "10", "-t", tests)
}

// Debian's stripped redis-server counts its commands itself.
func TestRedisCalls(t *testing.T) {
	t.Parallel()
	r := startRedis(t)
	s := attach(t, r.pid(), "processCommand", "call", "setCommand", "getCommand", "lpushCommand", "lookupKey*", "createEmbeddedStringObject")
	before, allBefore := r.calls()
	r.benchmark(3000, "set,get,lpush")
	after, all := r.calls()
	result := s.stop()

	result.complete(t)
	counts := result.counts()
	want := map[string]uint64{
		"setCommand":   after["set"] - before["set"],
		"getCommand":   after["get"] - before["get"],
		"lpushCommand": after["lpush"] - before["lpush"],
		// The last one that asked is not in its own answer.
		"call": all - allBefore + 1, "processCommand": all - allBefore + 1,
	}
	for name, n := range want {
		if counts[name] != n {
			t.Errorf("%s: %d calls, the server counts %d", name, counts[name], n)
		}
	}
	if want["setCommand"] != 3000 || want["getCommand"] != 3000 {
		t.Errorf("the server counts %v", want)
	}
	edges := result.namedEdges()
	for _, e := range []struct {
		parent, child string
		n             uint64
	}{
		{"", "processCommand", want["call"]}, {"processCommand", "call", want["call"]},
		{"call", "setCommand", 3000}, {"call", "getCommand", 3000}, {"call", "lpushCommand", want["lpushCommand"]},
	} {
		if n := edges[[2]string{e.parent, e.child}]; n != e.n {
			t.Errorf("%q calls %s %d times, want %d", e.parent, e.child, n, e.n)
		}
	}
	for name, row := range result.rows {
		if row.Timed != row.Calls || row.Min == 0 || row.P50 < row.Min || row.Max < row.P99 {
			t.Errorf("summary of %s: %+v", name, row)
		}
	}
}

// The bare command on a server at its limit shows whole requests, and soon costs
// it little.
func TestRedisBare(t *testing.T) {
	t.Parallel()
	r := startRedis(t)
	load := exec.Command(needTool(t, "redis-benchmark"), "-p", r.port, "-q", "-n", "100000000", "-c", "10", "-t", "get")
	if err := load.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		load.Process.Kill()
		load.Wait()
	})
	// cost is the CPU time of a request, over a time that says enough.
	cost := func() time.Duration {
		_, n := r.calls()
		used := cpuOf(t, r.pid())
		var spent time.Duration
		eventually(t, "the server to work", func() bool {
			spent = cpuOf(t, r.pid()) - used
			return spent >= 500*time.Millisecond
		})
		_, m := r.calls()
		return spent / time.Duration(m-n)
	}
	eventually(t, "the load", func() bool { by, _ := r.calls(); return by["get"] > 1000 })
	alone := cost()
	s, view := bareAttach(t, r.pid())
	for _, text := range []string{"processCommand() {\n", "getCommand", "} processCommand\n", ", detached"} {
		s.waitView(view, text)
	}
	traced := cost()
	got := s.stopView(view)
	t.Logf("CPU time of a request: %v alone, %v traced", alone, traced)
	// Without a limit it is ten times as much and more. What is allowed is a
	// tenth; caches and a loaded machine have the rest.
	if traced > 2*alone {
		t.Errorf("a traced request takes %v, one without tracing %v", traced, alone)
	}
	for _, text := range []string{"FUNCTION", "detached to bound the overhead", "≥ "} {
		if !strings.Contains(got, text) {
			t.Errorf("the view has no %q", text)
		}
	}
	if strings.Contains(got, "events lost") {
		t.Error("events were lost")
	}
	if stderr := s.stderr.String(); !strings.Contains(stderr, "attached: ") || strings.Contains(stderr, "cannot be probed") {
		t.Errorf("sbxtrace said %q", stderr)
	}
}

// What sbxtrace says of a stripped server.
func TestRedisFunctions(t *testing.T) {
	t.Parallel()
	r := startRedis(t)
	exe, err := filepath.EvalSymlinks("/proc/" + strconv.Itoa(r.pid()) + "/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{exe}, {"--pid", strconv.Itoa(r.pid())}} {
		all := listed(t, args...)
		if len(all) < 3000 {
			t.Errorf("%v: %d functions", args, len(all))
		}
		f := all["processCommand"]
		if f.NamedBy != "dynsym" || f.Entry == nil || f.Entry.Class != "emulated" || f.Returns == nil || f.Returns.Method != "uretprobe" {
			t.Errorf("%v: processCommand: %+v", args, f)
		}
		unnamed := 0
		for name, f := range all {
			if f.NamedBy == "eh_frame" {
				unnamed++
				if !strings.HasPrefix(name, filepath.Base(exe)+"+0x") {
					t.Errorf("%v: %s is named by eh_frame", args, name)
				}
			}
		}
		if unnamed < 500 {
			t.Errorf("%v: %d functions without a name", args, unnamed)
		}
	}
}
