package tests

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/sbxtrace/sbxtrace/internal/targets"
	"github.com/sbxtrace/sbxtrace/recording"
	"github.com/sbxtrace/sbxtrace/replay"
)

// saved are the recordings of a flight recorder, in their order, each of which
// must be whole.
func saved(t testing.TB, dir string) []*recording.File {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "flight-*.sbx"))
	if err != nil {
		t.Fatal(err)
	}
	var out []*recording.File
	for _, path := range paths {
		f := openRecording(t, path)
		if c := replay.Verify(f); len(c.Wrong) > 0 {
			t.Errorf("%s: %v", path, c.Wrong)
		}
		if f.Session.Trigger == nil || f.Session.Ring == nil {
			t.Fatalf("%s: %+v", path, f.Session)
		}
		if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
		out = append(out, f)
	}
	return out
}

// flightRecorder starts a flight recorder for a target.
func flightRecorder(t testing.TB, p *targets.Process, dir string, args ...string) *session {
	t.Helper()
	return record(t, p, filepath.Join(dir, "flight.sbx"), args...)
}

// A call that takes too long has what came before it saved, and what comes
// after.
func TestTriggerCall(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	p := start(t, targets.Build(t, "slow"), "--rounds", "5")
	s := flightRecorder(t, p, dir, "--trigger", "call(slow_*) > 1us", "--after", "1ms", "--max-triggers", "2")
	p.Go()
	if status := s.status(); status != 0 { // after two it ends, and the target runs on
		t.Fatalf("status %d\n%s", status, s.stderr)
	}
	files := saved(t, dir)
	if len(files) != 2 {
		t.Fatalf("%d recordings\n%s", len(files), s.stderr)
	}
	for _, f := range files {
		tr := f.Session.Trigger
		first, last := f.Span()
		if tr.What != "call(slow_*) > 1us" || tr.Time < first || tr.Time > last || recordedCalls(f) == 0 {
			t.Errorf("%+v in %d…%d, %d calls", tr, first, last, recordedCalls(f))
		}
		marks := uint32(0)
		for i := range f.Blocks {
			marks += f.Blocks[i].Header.Marks
		}
		if marks == 0 {
			t.Error("the trigger is not marked")
		}
	}
	p.Truth()
	if err := p.Quit(); err != nil {
		t.Errorf("the target ended with %v", err)
	}
}

// A crash has the calls saved that led to it.
func TestTriggerCrash(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	p := start(t, targets.Build(t, "crash"), "--segv")
	s := flightRecorder(t, p, dir, "--trigger", "crash", "--trigger", "call(no_such_thing) > 1s")
	p.Go()
	p.Truth()
	if err := p.Quit(); err == nil {
		t.Fatal("the target did not crash")
	}
	if status := s.status(); status != 0 {
		t.Fatalf("status %d\n%s", status, s.stderr)
	}
	files := saved(t, dir)
	if len(files) != 1 || files[0].Session.Trigger.What != "crash" {
		t.Fatalf("%d recordings\n%s", len(files), s.stderr)
	}
	names, err := filepath.Glob(filepath.Join(dir, "flight-*-crash.sbx"))
	if err != nil || len(names) != 1 {
		t.Fatalf("%v, %v", names, err)
	}
	ends := map[string]string{}
	for _, c := range readReplay(t, names[0]).calls {
		ends[c.Func] = c.End
	}
	for _, fn := range []string{"crash_outer", "crash_middle", "crash_inner"} {
		if ends[fn] != "thread-exit" {
			t.Errorf("%s ended with %q", fn, ends[fn])
		}
	}
}

// A value that a function returns, and the end of the target.
func TestTriggerReturn(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	p := start(t, targets.Build(t, "crash"), "--trap")
	s := flightRecorder(t, p, dir, "--level", "args", "--trigger", "ret(before) == 2")
	p.Go()
	p.Truth()
	if err := p.Quit(); err == nil {
		t.Fatal("the target did not crash")
	}
	if status := s.status(); status != 0 {
		t.Fatalf("status %d\n%s", status, s.stderr)
	}
	if files := saved(t, dir); len(files) != 1 || files[0].Session.Trigger.What != "ret(before) == 2" {
		t.Fatalf("%d recordings\n%s", len(files), s.stderr)
	}
}

// Without a condition it is saved when asked for: by the command, by the signal.
// Memory stays within its bound.
func TestTriggerAsked(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	p := start(t, targets.Build(t, "busy"))
	ready := filepath.Join(dir, "ready")
	i := typed("record", "--pid", strconv.Itoa(p.PID()), "--max-overhead", "off", "--ready-file", ready, "--ring", "2MiB")
	i.dir = dir
	s := i.start(t)
	s.ready = ready
	s.waitReady()
	p.Go()
	asked := typed("trigger", "--pid", strconv.Itoa(s.cmd.Process.Pid)).start(t)
	if status := asked.status(); status != 0 {
		t.Fatalf("status %d\n%s", status, asked.stderr)
	}
	s.waitNote("SIGUSR2: saved")
	s.signal(syscall.SIGUSR2)
	s.waitFor("another recording", func() bool { return strings.Count(s.stderr.String(), "SIGUSR2: saved") == 2 })
	s.signal(syscall.SIGINT)
	if status := s.status(); status != 0 {
		t.Fatalf("status %d\n%s", status, s.stderr)
	}
	paths, err := filepath.Glob(filepath.Join(dir, "sbxtrace-*-SIGUSR2.sbx"))
	if err != nil || len(paths) != 2 {
		t.Fatalf("%v, %v", paths, err)
	}
	for _, path := range paths {
		if n := size(path); n == 0 || n > 2<<20+64<<10 {
			t.Errorf("%s has %d bytes", path, n)
		}
		openRecording(t, path)
	}
}
