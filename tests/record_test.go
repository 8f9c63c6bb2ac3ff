package tests

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sbxtrace/sbxtrace/internal/targets"
	"github.com/sbxtrace/sbxtrace/recording"
)

// replayOf runs `sbxtrace replay` and returns what it prints.
func replayOf(t testing.TB, file string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(sbxtraceBin, append([]string{"replay", file}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("replay: %v\n%s", err, &stderr)
	}
	return out
}

func openRecording(t testing.TB, path string) *recording.File {
	t.Helper()
	f, err := recording.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// recordedCalls are how many calls a recording has.
func recordedCalls(f *recording.File) (n uint64) {
	for i := range f.Blocks {
		n += uint64(f.Blocks[i].Header.Calls)
	}
	return n
}

func sameOutput(t testing.TB, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	g, w := strings.Split(string(got), "\n"), strings.Split(string(want), "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			t.Fatalf("line %d of %d and %d\nreplayed %s\n    live %s", i+1, len(g), len(w), g[i], w[i])
		}
	}
	t.Fatalf("%d lines replayed, %d live", len(g), len(w))
}

// What was printed live is printed by replay, to the byte: programs that make
// pairing hard, every level, every view.
func TestReplaySame(t *testing.T) {
	needRoot(t)
	for _, tt := range []struct {
		target string
		flags  []string
	}{
		{"calls", nil},
		{"calls", []string{"--level", "args"}},
		{"calls", []string{"--level", "latency", "--hist", "*"}},
		{"calls", []string{"--level", "count"}},
		{"cxx", []string{"--level", "stacks"}},
		{"exceptions", nil},
		{"forker", nil},
		{"gocalls", []string{"--level", "stacks"}},
		{"goroutines", nil},
		{"longjmp", nil},
		{"recurse", nil},
		{"signals", nil},
		{"tailcalls", nil},
		{"threads", []string{"--min-duration", "50us"}},
		{"ucontext", nil},
	} {
		for _, view := range [][]string{nil, {"--format", "json", "--entries"}, {"--summary"}} {
			if (tt.target == "goroutines") == (len(view) != 1) {
				continue // of a million lines the sums will do, of others the lines
			}
			if len(view) == 3 && len(tt.flags) > 0 && (tt.flags[1] == "latency" || tt.flags[1] == "count") {
				view = view[:2] // there are no entries
			}
			if len(view) == 2 && len(tt.flags) == 4 {
				tt.flags = tt.flags[:2] // --hist is for people
			}
			t.Run(strings.Join(append(append([]string{tt.target}, tt.flags...), view...), " "), func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				live, file := filepath.Join(dir, "live"), filepath.Join(dir, "recording.sbx")
				args := append([]string{"run", "--max-overhead", "off", "--record", file, "-o", live}, tt.flags...)
				args = append(append(args, view...), "--", targets.Build(t, tt.target), "--auto")
				if out, err := exec.Command(sbxtraceBin, args...).CombinedOutput(); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				want, err := os.ReadFile(live)
				if err != nil {
					t.Fatal(err)
				}
				if len(want) == 0 {
					t.Fatal("nothing was printed")
				}
				if len(tt.flags) == 4 {
					view = append(view, tt.flags[2:]...)
				}
				sameOutput(t, replayOf(t, file, view...), want)
			})
		}
	}
}

// A session in which the governor takes functions out while they run is
// replayed the same, too.
func TestReplayGoverned(t *testing.T) {
	needRoot(t)
	p := start(t, targets.Build(t, "hot"))
	file := filepath.Join(t.TempDir(), "recording.sbx")
	var live bytes.Buffer
	cmd := exec.Command(sbxtraceBin, "attach", "--pid", strconv.Itoa(p.PID()), "--max-overhead", "1%", "--record", file, "--duration", "1s")
	cmd.Stdout = &live
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.Go()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	sameOutput(t, replayOf(t, file), live.Bytes())
	if !strings.Contains(live.String(), "detached") {
		t.Error("the governor took nothing out")
	}
}

// A recorded session says what the program did, when asked in parts, too.
func TestRecordTruth(t *testing.T) {
	needRoot(t)
	p := start(t, targets.Build(t, "threads"))
	dir := t.TempDir()
	file := filepath.Join(dir, "recording.sbx")
	s := record(t, p, file)
	p.Go()
	truth := p.Truth()
	if err := p.Quit(); err != nil {
		t.Fatal(err)
	}
	if status := s.status(); status != 0 {
		t.Fatalf("status %d\n%s", status, s.stderr)
	}
	if text := s.stderr.String(); !strings.Contains(text, "recorded ") || !strings.Contains(text, file) {
		t.Errorf("it does not say what was recorded: %s", text)
	}
	r := readReplay(t, file)
	report(t, "calls", differences("calls", truth.Counts, r.counts()))

	// The same in two parts: every call ends in one of them.
	f := openRecording(t, file)
	first, last := f.Span()
	middle := first + (last-first)/2
	sum := readReplay(t, file, "--to", fmt.Sprint(middle)).ended()
	for name, n := range readReplay(t, file, "--from", fmt.Sprint(middle)).counts() {
		sum[name] += n
	}
	report(t, "parts", differences("calls", truth.Counts, sum))

	// One function alone, as if it alone had been traced.
	name := ""
	for n, c := range truth.Counts {
		if c > 1 && (name == "" || n < name) {
			name = n
		}
	}
	report(t, name, differences("calls", map[string]uint64{name: truth.Counts[name]}, readReplay(t, file, "--func", name).counts()))

	if f.Session.Level != "calls" || len(f.Session.Targets) != 1 || len(f.Session.Modules) == 0 || f.Session.Modules[0].BuildID == "" {
		t.Errorf("session: %+v", f.Session)
	}
}

// readReplay is what replay prints in JSON.
func readReplay(t testing.TB, file string, args ...string) *result {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out.json")
	replayOf(t, file, append([]string{"--format", "json", "-o", out}, args...)...)
	return readResult(t, out)
}

// ended counts the calls that are not left open.
func (r *result) ended() map[string]uint64 {
	return r.only(func(c *call) bool { return c.End != "open" }).counts()
}

// record starts `sbxtrace record` for a target, and returns when all probes are
// in.
func record(t testing.TB, p *targets.Process, file string, args ...string) *session {
	t.Helper()
	ready := filepath.Join(t.TempDir(), "ready")
	s := typed(append([]string{"record", "--pid", strconv.Itoa(p.PID()), "--max-overhead", "off", "--ready-file", ready, "-o", file}, args...)...).start(t)
	s.ready = ready
	s.waitReady()
	return s
}

// recordBusy records a program that never rests.
func recordBusy(t testing.TB, file string, args ...string) (*session, *targets.Process) {
	t.Helper()
	p := start(t, targets.Build(t, "busy"), "--threads", "1")
	// Not by return probes: see KNOWN_ISSUES.md on detaching from a busy target.
	s := record(t, p, file, append([]string{"--returns", "ret"}, args...)...)
	p.Go()
	return s, p
}

// size is how large a file is, 0 when there is none.
func size(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// When sbxtrace is killed, what it had recorded is there but for the last block,
// and the target runs on.
func TestRecordKilled(t *testing.T) {
	needRoot(t)
	file := filepath.Join(t.TempDir(), "recording.sbx")
	s, p := recordBusy(t, file)
	before := uint64(0) // calls
	s.waitFor("several blocks to be in the file", func() bool {
		f, err := recording.Open(file)
		if err != nil {
			return false
		}
		defer f.Close()
		before = recordedCalls(f)
		return len(f.Blocks) >= 3
	})
	s.signal(syscall.SIGKILL)
	if !p.Alive() {
		t.Error("the target has ended")
	}
	p.Signal(syscall.SIGKILL)
	<-s.exited
	f := openRecording(t, file)
	if f.Indexed || recordedCalls(f) < before {
		t.Errorf("indexed: %v, %d calls, %d before it was killed", f.Indexed, recordedCalls(f), before)
	}
	if r := readReplay(t, file); uint64(len(r.calls)) < recordedCalls(f) {
		t.Errorf("%d calls of %d are replayed", len(r.calls), recordedCalls(f))
	}
}

// A full disk ends the recording: it says so, and what is there is whole.
func TestRecordFullDisk(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatalf("mount tmpfs: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	file := filepath.Join(dir, "recording.sbx")
	s, p := recordBusy(t, file)
	if status := s.status(); status != 1 {
		t.Errorf("status %d", status)
	}
	if text := s.stderr.String(); !strings.Contains(text, "no space left on device") || !strings.Contains(text, "what was recorded before is in") {
		t.Errorf("stderr: %s", text)
	}
	f := openRecording(t, file)
	if f.Damage.Any() || recordedCalls(f) == 0 {
		t.Errorf("%d calls, damage %+v", recordedCalls(f), f.Damage)
	}
	if r := readReplay(t, file, "--summary"); r.totals.Calls < recordedCalls(f) {
		t.Errorf("%d calls of %d are replayed", r.totals.Calls, recordedCalls(f))
	}
	if !p.Alive() {
		t.Error("the target has ended")
	}
}

// A live view goes on when the recording cannot.
func TestAttachFullDisk(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatalf("mount tmpfs: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	p := start(t, targets.Build(t, "busy"), "--threads", "1")
	s := attach(t, p.PID(), "--returns", "ret", "--summary", "--record", filepath.Join(dir, "recording.sbx"))
	p.Go()
	s.waitFor("the recording to end", func() bool { return strings.Contains(s.stderr.String(), "recording ends here") })
	s.signal(syscall.SIGINT)
	r := s.waitStatus(1)
	if r.totals.Calls == 0 {
		t.Error("no summary")
	}
}

// A ring stays within its bound, and has the newest calls in it.
func TestRecordRing(t *testing.T) {
	needRoot(t)
	file := filepath.Join(t.TempDir(), "ring.sbx")
	s, _ := recordBusy(t, file, "--ring", "1MiB")
	var most int64
	deadline := time.Now().Add(soakTime(t) / 2)
	s.waitFor("the ring to turn over", func() bool {
		most = max(most, size(file))
		f, err := recording.Open(file)
		if err != nil {
			return false
		}
		defer f.Close()
		return len(f.Blocks) > 0 && f.Blocks[0].Header.Seq > 20 && time.Now().After(deadline)
	})
	s.signal(syscall.SIGINT)
	if status := s.status(); status != 0 {
		t.Fatalf("status %d\n%s", status, s.stderr)
	}
	if most = max(most, size(file)); most > 1<<20 {
		t.Errorf("the file had %d bytes", most)
	}
	f := openRecording(t, file)
	if f.Damage.Any() || !f.Indexed || f.Session.Ring == nil {
		t.Errorf("damage %+v, indexed %v, ring %+v", f.Damage, f.Indexed, f.Session.Ring)
	}
	r := readReplay(t, file, "--summary")
	if r.totals.Calls < recordedCalls(f) || r.totals.Orphans > 100 {
		t.Errorf("%+v of %d calls", r.totals, recordedCalls(f))
	}
}

// Recordings are the invoking user's, and nobody else's to read.
func TestRecordOwner(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "recording.sbx")
	for range 2 { // also over one that is there
		cmd := exec.Command(sbxtraceBin, "record", "-o", file, "--user", "root", "--", targets.Build(t, "calls"), "--auto")
		cmd.Env = append(os.Environ(), "SUDO_UID=65534", "SUDO_GID=65534")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if st := info.Sys().(*syscall.Stat_t); info.Mode() != 0o600 || st.Uid != 65534 || st.Gid != 65534 {
			t.Errorf("mode %v, owner %d:%d", info.Mode(), st.Uid, st.Gid)
		}
	}
	// A session that does not come about leaves no file behind, and what
	// was there as it was.
	before := size(file)
	if out, err := exec.Command(sbxtraceBin, "record", "-o", file, "--", "/no/such/program").CombinedOutput(); err == nil {
		t.Errorf("no error: %s", out)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 || size(file) != before {
		t.Errorf("%v, %v: %d bytes, before %d", entries, err, size(file), before)
	}
}
