package tests

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"github.com/sbxtrace/sbxtrace/internal/targets"
	"github.com/sbxtrace/sbxtrace/trace"
)

// profileOf runs `sbxtrace profile` with args and reads the profile that it
// writes. begun is called when sampling has begun.
func profileOf(t *testing.T, begun func(), args ...string) *profile.Profile {
	t.Helper()
	dir := t.TempDir()
	out, ready := filepath.Join(dir, "profile.pb.gz"), filepath.Join(dir, "ready")
	cmd := exec.Command(sbxtraceBin, append([]string{"profile", "-o", out, "--ready-file", ready}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for {
		if _, err := os.Stat(ready); err == nil {
			break
		}
		select {
		case err := <-done:
			t.Fatalf("profile %v: %v\n%s", args, err, &stderr)
		case <-ctx.Done():
			t.Fatalf("not ready\n%s", &stderr)
		case <-time.After(5 * time.Millisecond):
		}
	}
	if begun != nil {
		begun()
	}
	select {
	case err := <-done:
		if err != nil {
			t.Fatalf("profile %v: %v\n%s", args, err, &stderr)
		}
	case <-ctx.Done():
		t.Fatalf("it does not end\n%s", &stderr)
	}
	return readProfile(t, out)
}

// valueOf is the sum of a value, by its index, of the samples whose stack has the
// function.
func valueOf(p *profile.Profile, index int, function string) (sum int64) {
	for _, s := range p.Sample {
		if slices.Contains(names(s), function) {
			sum += s.Value[index]
		}
	}
	return sum
}

func readProfile(t *testing.T, path string) *profile.Profile {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := profile.Parse(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.CheckValid(); err != nil {
		t.Fatal(err)
	}
	return p
}

// names are the functions of a sample's stack, innermost first.
func names(s *profile.Sample) []string {
	var names []string
	for _, l := range s.Location {
		for _, line := range l.Line {
			names = append(names, line.Function.Name)
		}
	}
	return names
}

// userFrames are the functions of a sample's user stack, innermost first.
func userFrames(s *profile.Sample) []string {
	var names []string
	for _, l := range s.Location {
		if l.Mapping != nil && strings.HasPrefix(l.Mapping.File, "[kernel") {
			continue
		}
		for _, line := range l.Line {
			names = append(names, line.Function.Name)
		}
	}
	return names
}

// checkStacks fails unless at least 99 % of the samples have a whole user stack,
// whose outermost function is one of roots.
func checkStacks(t *testing.T, p *profile.Profile, roots ...string) {
	t.Helper()
	var all, whole int64
	broken := map[string]int64{}
	for _, s := range p.Sample {
		frames := userFrames(s)
		if len(frames) == 0 {
			continue
		}
		all += s.Value[0]
		root := frames[len(frames)-1]
		// Where the C library has no symbols, the start of its threads has no name.
		if (slices.Contains(roots, root) || strings.HasPrefix(root, "libc.so.6+")) && len(s.Label["incomplete"]) == 0 {
			whole += s.Value[0]
			continue
		}
		if len(frames) > 12 {
			frames = append(frames[:6:6], append([]string{"…"}, frames[len(frames)-5:]...)...)
		}
		broken[strings.Join(s.Label["incomplete"], "")+" "+strings.Join(frames, " < ")] += s.Value[0]
	}
	if all == 0 || float64(whole) < 0.99*float64(all) {
		n := 0
		for stack, count := range broken {
			if n++; n < 15 {
				t.Logf("%d × %s", count, stack)
			}
		}
		t.Errorf("%d of %d samples have a whole stack, from one of %v", whole, all, roots)
	}
}

// samples is how many samples there are.
func samples(p *profile.Profile) (n int64) {
	for _, s := range p.Sample {
		n += s.Value[0]
	}
	return n
}

// shareOf is the part of the samples whose stack has the function.
func shareOf(p *profile.Profile, function string) float64 {
	var with, all int64
	for _, s := range p.Sample {
		all += s.Value[0]
		if slices.Contains(names(s), function) {
			with += s.Value[0]
		}
	}
	return float64(with) / float64(all)
}

// TestProfileShares: the shares of CPU time are those that the programs
// themselves measure, and every stack reaches from the function that works to
// the start of its thread, without frame pointers.
func TestProfileShares(t *testing.T) {
	needRoot(t)
	c := map[string]string{"seventy": "seventy", "twenty": "twenty", "ten": "ten"}
	cxx := map[string]string{"seventy": "work::Heavy::run()", "twenty": "work::Light::run()", "ten": "void work::generic<int>(int)"}
	golang := map[string]string{"seventy": "main.heavy.run", "twenty": "main.light.run", "ten": "main.generic[go.shape.struct { main.a int; main.b int }]"}
	rust := map[string]string{"seventy": "<rustshares::Heavy as rustshares::Task>::run", "twenty": "<rustshares::Light as rustshares::Task>::run", "ten": "rustshares::generic"}
	starts := []string{"_start", "clone3", "__clone3", "clone", "__clone", "thread_start"}
	goStarts := []string{"runtime.goexit", "runtime.mstart", "runtime.mcall", "runtime.rt0_go", "runtime.gogo"}
	for name, test := range map[string]struct {
		target  string
		options []targets.Option
		args    []string
		names   map[string]string
		roots   []string
		deep    int // frames of a stack at least
	}{
		"c":             {target: "shares", names: c, roots: starts},
		"c 200 frames":  {target: "shares", args: []string{"--depth", "200"}, names: c, roots: starts, deep: 200},
		"c 1000 frames": {target: "shares", args: []string{"--depth", "1000", "--threads", "2"}, names: c, roots: starts, deep: 1000},
		"c clang":       {target: "shares", options: []targets.Option{targets.Clang()}, args: []string{"--depth", "20"}, names: c, roots: starts},
		"c static":      {target: "shares", options: []targets.Option{targets.Static()}, args: []string{"--threads", "3"}, names: c, roots: starts},
		"c no pie":      {target: "shares", options: []targets.Option{targets.NoPIE()}, args: []string{"--threads", "1"}, names: c, roots: starts},
		"c musl":        {target: "shares", options: []targets.Option{targets.Musl(), targets.Static()}, args: []string{"--depth", "20"}, names: c, roots: starts},
		"c++":           {target: "cxxshares", args: []string{"--depth", "10"}, names: cxx, roots: starts},
		"rust":          {target: "rustshares", args: []string{"--depth", "30"}, names: rust, roots: starts, deep: 30},
		"go":            {target: "goshares", args: []string{"--depth", "100"}, names: golang, roots: goStarts, deep: 100},
	} {
		t.Run(name, func(t *testing.T) {
			p := targets.Start(t, targets.Build(t, test.target, test.options...), test.args...)
			p.Ready()
			prof := profileOf(t, p.Go, "--pid", strconv.Itoa(p.PID()), "--hz", "1999", "--duration", "1s")
			truth := p.Stop()
			checkStacks(t, prof, test.roots...)
			sum, worked := 0.0, 0.0
			for id, function := range test.names {
				sum += float64(truth.Values[id])
				worked += shareOf(prof, function)
			}
			for id, function := range test.names {
				want, got := float64(truth.Values[id])/sum, shareOf(prof, function)/worked
				if tolerance := 0.03 + 3*math.Sqrt(want*(1-want)/float64(samples(prof))); math.Abs(got-want) > tolerance {
					t.Errorf("%s has %.1f %% of the samples, and %.1f %% of the time", function, 100*got, 100*want)
				}
			}
			deepest := 0
			for _, s := range prof.Sample {
				deepest = max(deepest, len(userFrames(s)))
			}
			if deepest < test.deep {
				t.Errorf("the deepest stack has %d frames, want %d", deepest, test.deep)
			}
		})
	}
}

// TestProfileFrames: whatever the shape of the frames, the stack is whole.
func TestProfileFrames(t *testing.T) {
	needRoot(t)
	for name, options := range map[string][]targets.Option{
		"gcc": nil, "O0": {targets.OptLevel("0")}, "clang": {targets.Clang()}, "static": {targets.Static()},
		"musl": {targets.Musl(), targets.Static()}, "no rules of its own": {targets.Flags("-fno-asynchronous-unwind-tables")},
	} {
		t.Run(name, func(t *testing.T) {
			p := targets.Start(t, targets.Build(t, "frames", options...))
			p.Ready()
			prof := profileOf(t, p.Go, "--pid", strconv.Itoa(p.PID()), "--hz", "1999", "--duration", "1s")
			truth := p.Stop()
			checkStacks(t, prof, "_start")
			// Each shape takes about as long as the others: all have been seen.
			seen := map[string]int64{}
			for _, s := range prof.Sample {
				frames := userFrames(s)
				for i, f := range frames {
					shape, leaf := strings.CutSuffix(f, "_leaf")
					if shape == "shape_tail" {
						shape = "shape_tail_inner" // the rest of the way is gone
					}
					if leaf {
						seen[shape]++
						if !slices.Contains(frames[i:], shape) || !slices.Contains(frames[i:], "main") {
							t.Errorf("%s is not below its caller: %v", f, frames)
						}
					}
					if f == "frames_assembly" || f == "frames_bare" {
						seen[f]++
						if i > 0 || !strings.HasPrefix(frames[1], "shape_") {
							t.Errorf("%s without its caller: %v", f, frames)
						}
					}
				}
			}
			if len(seen) < len(truth.Counts)-3 && samples(prof) > 600 {
				t.Errorf("only these shapes were seen: %v", seen)
			}
		})
	}
}

// TestProfileAddsUp: samples times their period are the CPU time that the
// program has used by its own account, from its first instruction to its end.
func TestProfileAddsUp(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	out := filepath.Join(dir, "profile.pb.gz")
	interrupts, whole := softirqTime(t)
	cmd := exec.Command(sbxtraceBin, "profile", "--hz", "1999", "-o", out, "--", targets.Build(t, "shares"), "--auto", "--threads", "2", "--ms", "1500")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	var truth targets.Truth
	if err := json.Unmarshal(stdout.Bytes(), &truth); err != nil {
		t.Fatalf("%v: %s", err, &stdout)
	}
	prof := readProfile(t, out)
	n := float64(samples(prof))
	got, used := n*float64(prof.Period), float64(truth.Values["all"])
	// Where other programs take the CPU away a sample is taken by chance; and what
	// the kernel does for them in interrupts is on nobody's account.
	idle := 1 - min(1, used/float64(2*prof.DurationNanos))
	tolerance := 0.02 + 4*math.Sqrt(idle/n)
	if i, w := softirqTime(t); w > whole {
		tolerance += 2 * float64(i-interrupts) / float64(w-whole)
	}
	if d := got/used - 1; math.Abs(d) > tolerance {
		t.Errorf("%.0f samples × %d ns = %.3f s, the program has used %.3f s (tolerance %.1f %%)", n, prof.Period, got/1e9, used/1e9, 100*tolerance)
	}
	checkStacks(t, prof, "_start", "clone3", "__clone3")
	for _, s := range prof.Sample {
		if s.Value[1] != s.Value[0]*prof.Period || len(s.NumLabel["pid"]) != 1 || len(s.NumLabel["tid"]) != 1 || s.Label["thread"][0] != "shares" {
			t.Fatalf("sample %v", s)
		}
	}
	if main := prof.Mapping[0]; filepath.Base(main.File) != "shares" || main.BuildID == "" || main.Start >= main.Limit {
		t.Errorf("the first mapping is %+v, not the program", main)
	}
}

// softirqTime is the time that all CPUs have spent in software interrupts, and
// all the time that they were busy, in ticks.
func softirqTime(t *testing.T) (softirq, busy int) {
	t.Helper()
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(data), "\n")
	for i, field := range strings.Fields(line)[1:] {
		n, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		const idle, iowait, irq, soft, steal = 3, 4, 5, 6, 7
		switch i {
		case idle, iowait:
		case irq, soft, steal:
			softirq += n
			busy += n
		case 0, 1, 2:
			busy += n
		}
	}
	return softirq, busy
}

// TestProfileEnds: whatever ends a profile, what was sampled is written.
func TestProfileEnds(t *testing.T) {
	needRoot(t)
	shares := targets.Build(t, "shares")
	t.Run("target exits", func(t *testing.T) {
		p := targets.Start(t, shares, "--ms", "200")
		p.Ready()
		prof := profileOf(t, func() { p.Go(); p.Truth(); p.Quit() }, "--pid", strconv.Itoa(p.PID()), "--hz", "997")
		if samples(prof) < 50 || shareOf(prof, "seventy") < 0.4 {
			t.Errorf("%d samples of a process that has ended, %.0f %% of them in seventy", samples(prof), 100*shareOf(prof, "seventy"))
		}
	})
	t.Run("interrupt", func(t *testing.T) {
		p := targets.Start(t, shares)
		p.Ready()
		p.Go()
		dir := t.TempDir()
		out, ready := filepath.Join(dir, "p.pb.gz"), filepath.Join(dir, "ready")
		cmd := exec.Command(sbxtraceBin, "profile", "--pid", strconv.Itoa(p.PID()), "--hz", "997", "-o", out, "--ready-file", ready, "--duration", "1h")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer cmd.Process.Kill()
		for range 20000 {
			if _, err := os.Stat(ready); err == nil {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		used := cpuTimeOf(t, p.PID())
		for cpuTimeOf(t, p.PID()) < used+300*time.Millisecond {
			time.Sleep(5 * time.Millisecond)
		}
		cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%v\n%s", err, &stderr)
		}
		if prof := readProfile(t, out); samples(prof) < 100 {
			t.Errorf("%d samples\n%s", samples(prof), &stderr)
		}
	})
	t.Run("command's status", func(t *testing.T) {
		out := filepath.Join(t.TempDir(), "p.txt")
		cmd := exec.Command(sbxtraceBin, "profile", "-o", out, "--", "/bin/sh", "-c", "echo said; exit 7")
		text, err := cmd.Output()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 7 || string(text) != "said\n" {
			t.Errorf("%v, output %q", err, text)
		}
	})
}

// cpuTimeOf is the CPU time that a process has used.
func cpuTimeOf(t *testing.T, pid int) time.Duration {
	t.Helper()
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/schedstat")
	if err != nil {
		t.Fatal(err)
	}
	ns, err := strconv.ParseInt(strings.Fields(string(data))[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(ns)
}

// TestProfileFollows: children, what they execute, and libraries that are loaded
// while sampling goes on.
func TestProfileFollows(t *testing.T) {
	needRoot(t)
	shares := targets.Build(t, "shares")
	script := shares + " --auto --ms 300 & " + shares + " --auto --ms 300 --depth 50; wait"
	out := filepath.Join(t.TempDir(), "p.pb.gz")
	cmd := exec.Command(sbxtraceBin, "profile", "--hz", "1999", "-o", out, "--", "/bin/sh", "-c", script)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	prof := readProfile(t, out)
	pids := map[int64]int64{}
	for _, s := range prof.Sample {
		if slices.Contains(names(s), "seventy") {
			pids[s.NumLabel["pid"][0]] += s.Value[0]
		}
	}
	if len(pids) != 2 {
		t.Errorf("samples of these processes: %v", pids)
	}
	// A program has executed some instructions before its tables are there.
	var early int64
	prof.Sample = slices.DeleteFunc(prof.Sample, func(s *profile.Sample) bool {
		if slices.Contains(s.Label["incomplete"], trace.CutNotLoaded.String()) {
			early += s.Value[0]
			return true
		}
		return s.Label["thread"][0] != "shares"
	})
	if all := samples(prof); float64(early) > 0.1*float64(all) {
		t.Errorf("%d of %d samples were too early for their program", early, all)
	}
	checkStacks(t, prof, "_start")
}

// TestProfileNames: functions of the kernel and of generated code have names.
func TestProfileNames(t *testing.T) {
	needRoot(t)
	t.Run("kernel", func(t *testing.T) {
		out := filepath.Join(t.TempDir(), "p.pb.gz")
		cmd := exec.Command(sbxtraceBin, "profile", "--hz", "1999", "-o", out, "--", "dd", "if=/dev/zero", "of=/dev/null", "bs=1M", "count=20000", "status=none")
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		prof := readProfile(t, out)
		var kernel, named int64
		for _, s := range prof.Sample {
			if l := s.Location[0]; l.Mapping != nil && l.Mapping.File == "[kernel]" {
				kernel += s.Value[0]
				if len(l.Line) > 0 {
					named += s.Value[0]
				}
			}
		}
		if kernel*2 < samples(prof) || named != kernel {
			t.Errorf("%d samples, %d of them in the kernel, %d of those have a name", samples(prof), kernel, named)
		}
	})
	t.Run("node", func(t *testing.T) {
		node := needTool(t, "node")
		dir := t.TempDir()
		script := filepath.Join(dir, "busy.js")
		source := "function innermost(n) { let s = 0; for (let i = 0; i < n; i++) s += i * i % 7; return s }\n" +
			"function caller() { return innermost(100000) + innermost(1000) }\n" +
			"const end = Date.now() + 1500; while (Date.now() < end) caller()\n"
		if err := os.WriteFile(script, []byte(source), 0o644); err != nil {
			t.Fatal(err)
		}
		out := filepath.Join(dir, "p.pb.gz")
		cmd := exec.Command(sbxtraceBin, "profile", "--hz", "997", "-o", out, "--", node, "--perf-basic-prof", script)
		cmd.Dir = dir
		text, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		prof := readProfile(t, out)
		for _, s := range prof.Sample {
			os.Remove(fmt.Sprintf("/tmp/perf-%d.map", s.NumLabel["pid"][0]))
		}
		if share := shareOf(prof, "innermost"); share < 0.5 {
			t.Errorf("innermost has %.0f %% of %d samples", 100*share, samples(prof))
		}
	})
}

// TestProfileWaits: the time that threads wait, by what they wait for, is what
// they measure themselves.
func TestProfileWaits(t *testing.T) {
	needRoot(t)
	functions := []string{"sleeps", "holds", "wants", "reads", "writes"}
	for name, test := range map[string]struct {
		flags []string
		none  []string // wait for something else
	}{
		"off-cpu": {flags: []string{"--event", "off-cpu"}},
		"wall":    {flags: []string{"--event", "wall"}},
		"lock":    {flags: []string{"--event", "lock"}, none: []string{"sleeps", "reads", "writes"}},
		"wakers":  {flags: []string{"--event", "lock", "--wakers"}, none: []string{"sleeps", "reads", "writes"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := targets.Start(t, targets.Build(t, "waits"))
			p.Ready()
			// The profile begins and ends while the target waits: it is that much
			// shorter than the target's own account.
			prof := profileOf(t, p.Go, append([]string{"--pid", strconv.Itoa(p.PID()), "--duration", "1s"}, test.flags...)...)
			truth := p.Stop()
			checkStacks(t, prof, "_start", "clone3", "__clone3")
			if prof.SampleType[1].Unit != "nanoseconds" {
				t.Errorf("types %v", prof.SampleType)
			}
			// The target was told to begin when sampling had.
			most := float64(prof.DurationNanos)
			if len(test.none) == 0 {
				most = 0
				for _, function := range functions {
					most = max(most, float64(valueOf(prof, 1, function)))
				}
				if most < 0.1*float64(prof.DurationNanos) {
					t.Errorf("%.0f ns of waiting in %d", most, prof.DurationNanos)
				}
			}
			for _, function := range functions {
				share := float64(valueOf(prof, 1, function)) / most
				// Of the time in which its thread did nothing but this.
				want := float64(truth.Values[function]) / float64(truth.Values["holds"])
				switch {
				case slices.Contains(test.none, function):
					if share > 0 {
						t.Errorf("%s has %.1f %% of the time", function, 100*share)
					}
				case len(test.none) > 0 && function == "holds": // mostly it has the lock
				case len(test.none) > 0: // wants: 15 of 23 ms, the rest is a pause
					if share < 0.2 || share > 0.9 {
						t.Errorf("%s waits %.1f %% of the time for the lock", function, 100*share)
					}
				case math.Abs(share-want) > 0.1:
					t.Errorf("%s waits %.1f %% of the time, by its own account %.1f %%", function, 100*share, 100*want)
				}
			}
			if name == "wakers" && !slices.ContainsFunc(prof.Sample, func(s *profile.Sample) bool {
				frames := names(s)
				return slices.Contains(frames, "wants") && slices.Contains(frames, "holds") && slices.Contains(frames, "woken by waits")
			}) {
				t.Error("wants does not wait for holds")
			}
		})
	}
	t.Run("page faults", func(t *testing.T) {
		p := targets.Start(t, targets.Build(t, "waits"))
		p.Ready()
		prof := profileOf(t, p.Go, "--pid", strconv.Itoa(p.PID()), "--duration", "1s", "--event", "page-fault")
		truth := p.Stop()
		checkStacks(t, prof, "_start", "clone3", "__clone3")
		got, calls := valueOf(prof, 1, "touches"), truth.Values["pages"]/64
		if got < 64 || got > truth.Values["pages"]+calls || got%64 > calls {
			t.Errorf("%d page faults in touches, which has touched %d pages in its whole life", got, truth.Values["pages"])
		}
	})
}

// TestProfileAllocations: bytes by function, and what was not given back.
func TestProfileAllocations(t *testing.T) {
	needRoot(t)
	for name, options := range map[string][]targets.Option{
		"dynamic": nil, "static": {targets.Static()}, "musl": {targets.Musl(), targets.Static()},
	} {
		t.Run(name, func(t *testing.T) {
			p := targets.Start(t, targets.Build(t, "allocs", options...), "--rounds", "500")
			p.Ready()
			var truth targets.Truth
			prof := profileOf(t, func() { p.Go(); truth = p.Truth(); p.Quit() }, "--pid", strconv.Itoa(p.PID()), "--event", "alloc")
			checkStacks(t, prof, "_start")
			for _, function := range []string{"keeps", "frees", "grows", "aligns", "zeroes"} {
				if got := valueOf(prof, 1, function); got != truth.Values[function] {
					t.Errorf("%s has allocated %d bytes, and says %d", function, got, truth.Values[function])
				}
				left := int64(0)
				if function == "keeps" {
					left = truth.Values[function]
				}
				if got := valueOf(prof, 3, function); got != left {
					t.Errorf("%d bytes of %s are left, not %d", got, function, left)
				}
			}
		})
	}
	t.Run("go", func(t *testing.T) {
		p := targets.Start(t, targets.Build(t, "goallocs"), "--rounds", "300")
		p.Ready()
		var truth targets.Truth
		prof := profileOf(t, func() { p.Go(); truth = p.Truth(); p.Quit() }, "--pid", strconv.Itoa(p.PID()), "--event", "alloc")
		for function, bytes := range truth.Values {
			// The runtime allocates a little for itself now and then.
			if got := valueOf(prof, 1, function); got < bytes || got > bytes+bytes/50 {
				t.Errorf("%s has allocated %d bytes, and says %d", function, got, bytes)
			}
		}
	})
	t.Run("sampled", func(t *testing.T) {
		p := targets.Start(t, targets.Build(t, "allocs"), "--rounds", "4000")
		p.Ready()
		var truth targets.Truth
		prof := profileOf(t, func() { p.Go(); truth = p.Truth(); p.Quit() }, "--pid", strconv.Itoa(p.PID()), "--event", "alloc", "--period", "10")
		got, want := float64(valueOf(prof, 1, "keeps")), float64(truth.Values["keeps"])
		if sigma := want / math.Sqrt(400); math.Abs(got-want) > 5*sigma {
			t.Errorf("about %.0f bytes of %.0f, one in ten allocations sampled", got, want)
		}
	})
}

// TestProfileCalls: samples of calls are as many as there are calls.
func TestProfileCalls(t *testing.T) {
	needRoot(t)
	for name, test := range map[string]struct{ target, function string }{
		"c": {"allocs", "zeroes"}, "go": {"goallocs", "main.pointers"},
	} {
		t.Run(name, func(t *testing.T) {
			p := targets.Start(t, targets.Build(t, test.target), "--rounds", "300")
			p.Ready()
			prof := profileOf(t, func() { p.Go(); p.Truth(); p.Quit() }, "--pid", strconv.Itoa(p.PID()), "--event", test.function)
			if got := valueOf(prof, 1, test.function); got != 300 {
				t.Errorf("%d of 300 calls", got)
			}
			checkStacks(t, prof, "_start", "runtime.goexit")
		})
	}
	t.Run("library", func(t *testing.T) {
		p := targets.Start(t, targets.Build(t, "allocs"), "--rounds", "300")
		p.Ready()
		prof := profileOf(t, func() { p.Go(); p.Truth(); p.Quit() }, "--pid", strconv.Itoa(p.PID()), "--event", "libc*:calloc")
		if got := valueOf(prof, 1, "zeroes"); got != 300 {
			t.Errorf("%d of 300 calls by zeroes", got)
		}
	})
	t.Run("nothing matches", func(t *testing.T) {
		p := targets.Start(t, targets.Build(t, "allocs"))
		p.Ready()
		text, err := exec.Command(sbxtraceBin, "profile", "--pid", strconv.Itoa(p.PID()), "--event", "no_such_function").CombinedOutput()
		if err == nil || !strings.Contains(string(text), "no function of the target matches") {
			t.Errorf("%v: %s", err, text)
		}
	})
}
