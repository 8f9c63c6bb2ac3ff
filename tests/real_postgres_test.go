package tests

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/sbxtrace/sbxtrace/symbolizer"
)

// postgres is a running PostgreSQL server with a database "work" that nobody
// else uses.
type postgres struct {
	*server
	bin     string // directory of Debian's programs
	program string // the server's
	dir     string // with its socket
	port    string
}

// startPostgres starts a copy of Debian's server that nobody else runs: one that
// others run too is traced in new processes only some milliseconds after the fork.
func startPostgres(t testing.TB) *postgres {
	t.Helper()
	needRoot(t)
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if len(found) == 0 {
		t.Skip("needs postgresql, which is not installed")
	}
	p := &postgres{bin: filepath.Dir(found[len(found)-1]), dir: dirFor(t, "postgres"), port: freePort(t)}
	data := filepath.Join(p.dir, "data")
	uid, gid := userIDs(t, "postgres")
	initdb := exec.Command(filepath.Join(p.bin, "initdb"), "-D", data, "-A", "trust", "--no-sync", "-E", "UTF8", "--locale", "C.UTF-8")
	initdb.Dir = p.dir
	initdb.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	if out, err := initdb.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	p.program = filepath.Join(p.dir, "postgres")
	copyFile(t, filepath.Join(p.bin, "postgres"), p.program)
	p.server = serve(t, "postgres", func() bool {
		return exec.Command(filepath.Join(p.bin, "pg_isready"), "-q", "-h", p.dir, "-p", p.port).Run() == nil
	}, p.program, "-D", data, "-p", p.port, "-k", p.dir,
		"-c", "listen_addresses=", "-c", "fsync=off", "-c", "autovacuum=off", "-c", "max_logical_replication_workers=0")
	p.query("postgres", "create database work")
	return p
}

func (p *postgres) psql(database string, args ...string) []string {
	return append([]string{filepath.Join(p.bin, "psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1",
		"-h", p.dir, "-p", p.port, "-U", "postgres", "-d", database}, args...)
}

// query runs a statement in a connection of its own.
func (p *postgres) query(database, statement string) string {
	p.t.Helper()
	return strings.TrimSpace(output(p.t, p.psql(database, "-c", statement)...))
}

// committed is the server's own counter of transactions in the database "work".
func (p *postgres) committed() int {
	p.t.Helper()
	n, err := strconv.Atoi(p.query("postgres", "select xact_commit from pg_stat_database where datname = 'work'"))
	if err != nil {
		p.t.Fatal(err)
	}
	return n
}

// connection is a psql that stays.
type connection struct {
	t       testing.TB
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	stdout  *bufio.Reader
	backend int // the server process
}

func (p *postgres) connect(database string) *connection {
	p.t.Helper()
	line := p.psql(database)
	c := &connection{t: p.t, cmd: exec.Command(line[0], line[1:]...)}
	var err error
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		p.t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	c.stdout = bufio.NewReader(out)
	if err := c.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		c.cmd.Process.Kill()
		c.cmd.Wait()
	})
	if c.backend, err = strconv.Atoi(c.ask("select pg_backend_pid();")); err != nil {
		p.t.Fatal(err)
	}
	return c
}

// ask runs a statement that gives one line.
func (c *connection) ask(statement string) string {
	c.t.Helper()
	if _, err := fmt.Fprintln(c.stdin, statement); err != nil {
		c.t.Fatal(err)
	}
	answer, err := c.stdout.ReadString('\n')
	if err != nil {
		c.t.Fatalf("%s: %v", statement, err)
	}
	return strings.TrimSpace(answer)
}

// close ends the connection and returns when its server process has ended.
func (c *connection) close() {
	c.t.Helper()
	c.stdin.Close()
	if err := c.cmd.Wait(); err != nil {
		c.t.Errorf("psql: %v", err)
	}
	eventually(c.t, "the backend to end", func() bool { return taskState(c.backend) == "" })
}

// semaphore is the counter that enables a static probe in a process.
func semaphore(t testing.TB, pid int, probe listedLine) uint16 {
	t.Helper()
	addr, err := strconv.ParseUint(probe.Sites[0].Semaphore, 0, 64)
	if err != nil {
		t.Fatalf("semaphore of %s: %v", probe.Name, err)
	}
	modules, err := symbolizer.Modules(pid)
	if err != nil {
		t.Fatal(err)
	}
	main := modules[slices.IndexFunc(modules, func(m symbolizer.Module) bool { return m.Main })]
	bin, err := symbolizer.Open(symbolizer.ExePath(pid))
	if err != nil {
		t.Fatal(err)
	}
	defer bin.Close()
	// How far the program was moved: where a mapping lies and what it is of.
	m := main.Mappings[0]
	for _, p := range bin.File().Progs {
		if p.Off <= m.Offset && m.Offset < p.Off+p.Filesz && p.Flags&1 != 0 {
			addr += m.Start - (p.Vaddr + m.Offset - p.Off)
		}
	}
	memory, err := os.Open("/proc/" + strconv.Itoa(pid) + "/mem")
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	var value [2]byte
	if _, err := memory.ReadAt(value[:], int64(addr)); err != nil {
		t.Fatalf("read the semaphore of %s in process %d: %v", probe.Name, pid, err)
	}
	return binary.LittleEndian.Uint16(value[:])
}

// Static probes with arguments, in server processes that were there and in those
// that start later; the server counts transactions itself.
func TestPostgresStatic(t *testing.T) {
	t.Parallel()
	p := startPostgres(t)
	probes := listed(t, p.program, "--usdt", "postgresql:*")
	start := probes["postgresql:query__start"]
	if len(probes) < 50 || start.Type != "static" || len(start.Sites) != 1 || len(start.Sites[0].Args) != 1 {
		t.Fatalf("%d static probes, query__start is %+v", len(probes), start)
	}

	// Others see the statistics of a connection when it has ended, or was told to
	// show them.
	old := p.connect("work")
	old.ask("select pg_stat_force_next_flush();")
	before := p.committed()
	for _, pid := range []int{p.pid(), old.backend} {
		if n := semaphore(t, pid, start); n != 0 {
			t.Errorf("the semaphore of process %d is %d before anybody traces it", pid, n)
		}
	}
	s := attach(t, p.pid(), "--usdt", "postgresql:query__*", "--usdt", "postgresql:transaction__*")
	want := map[string]int{}
	ask := func(c *connection, statement, answer string) {
		t.Helper()
		if got := c.ask(statement); got != answer {
			t.Errorf("%s: %q, want %q", statement, got, answer)
		}
		want[statement]++
	}
	ask(old, "select 6 * 7;", "42")
	late := p.connect("work")
	want["select pg_backend_pid();"]++
	for i := range 5 {
		ask(late, "select 'é', count(*) from generate_series(1, 1000);", "é|1000")
		ask(old, fmt.Sprintf("select %d;", i), strconv.Itoa(i))
	}
	for _, pid := range []int{p.pid(), old.backend, late.backend} {
		if n := semaphore(t, pid, start); n == 0 {
			t.Errorf("the semaphore of process %d is 0 while it is traced", pid)
		}
	}
	stays := p.connect("postgres") // another database
	last := p.connect("work")
	want["select pg_backend_pid();"] += 2
	for _, c := range []*connection{old, late, last} {
		c.close()
	}
	after := p.committed()
	result := s.stop()
	for _, pid := range []int{p.pid(), stays.backend} {
		if n := semaphore(t, pid, start); n != 0 {
			t.Errorf("the semaphore of process %d is %d after tracing", pid, n)
		}
		intact(t, pid)
	}
	stays.close()

	work := []int{old.backend, late.backend, last.backend}
	commits := 0
	got := map[string]map[string]int{} // by probe and text
	var order []string                 // of the probes of one statement
	for _, e := range result.of("usdt") {
		if e.Func == "postgresql:transaction__commit" && slices.Contains(work, e.PID) {
			commits++
		}
		if got[e.Func] == nil {
			got[e.Func] = map[string]int{}
		}
		text := ""
		if len(e.Texts) > 0 {
			text = e.Texts[0]
		}
		if got[e.Func][text]++; e.PID == late.backend && strings.HasPrefix(e.Func, "postgresql:query__") && len(order) < 10 {
			order = append(order, strings.TrimPrefix(e.Func, "postgresql:query__"))
		}
	}
	if n := after - before; commits != n {
		t.Errorf("%d commits, the server counts %d", commits, n)
	}
	for _, probe := range []string{"query__start", "query__parse__start", "query__rewrite__start", "query__done"} {
		for statement, n := range want {
			if got := got["postgresql:"+probe][strings.TrimSpace(statement)]; got != n {
				t.Errorf("%s(%q): %d times, want %d", probe, statement, got, n)
			}
		}
	}
	if want := []string{"start", "parse__start", "parse__done", "rewrite__start", "rewrite__done",
		"plan__start", "plan__done", "execute__start", "execute__done", "done"}; !slices.Equal(order, want) {
		t.Errorf("a statement fires %v, want %v", order, want)
	}
	if row := result.rows["postgresql:query__execute__start"]; int(row.Calls) != got["postgresql:query__execute__start"][""] {
		t.Errorf("%d hits in the summary of query__execute__start, %d in the stream", row.Calls, got["postgresql:query__execute__start"][""])
	}
}

// The bare command on the postmaster shows the backend that it forks for a
// connection, to its end; an error that is handled by longjmp leaves calls, which
// are marked and do not disturb the others.
func TestPostgresBare(t *testing.T) {
	t.Parallel()
	p := startPostgres(t)
	s, view := bareAttach(t, p.pid(), "exec_simple_query", "pg_*_quer*", "errfinish", "PostgresMain", "ServerLoop", "fork_process",
		"standard_*", "postgres+*", "int4div", "ExecutorRun", "--max-overhead", "off")
	s.waitAttached()
	p.query("work", "select 1")
	if err := exec.Command("sh", "-c", strings.Join(quoted(p.psql("work", "-c", "select 1/0")), " ")).Run(); err == nil {
		t.Error("a division by zero was no error")
	}
	p.query("work", "select 2")
	s.waitView(view, "errfinish")
	got := s.stopView(view)
	for _, text := range []string{"fork_process() {\n", "⑂ fork: process ", "} standard_ExecutorRun\n", "} pg_plan_queries\n", "■ exit: process "} {
		if !strings.Contains(got, text) {
			t.Errorf("the view has no %q", text)
		}
	}
	if !strings.Contains(got, "int4div()  ↯ unwound") && !strings.Contains(got, "} int4div  ↯ unwound") {
		t.Error("int4div, which an error left, is not marked")
	}
}

func quoted(args []string) []string {
	out := make([]string, len(args))
	for i, a := range args {
		out[i] = "'" + a + "'"
	}
	return out
}
