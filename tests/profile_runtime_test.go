package tests

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/pprof/profile"

	"github.com/sbxtrace/sbxtrace/internal/targets"
)

// pythonShares spends 70, 20 and 10 parts of its time in three functions, the
// last one called by C code, and tells how much of its CPU time each really took.
const pythonShares = `import ctypes, json, os, sys, threading, time

def spin(n):
    s = 0
    for i in range(n):
        s = (s * 31 + i) & 0xffff
    return s

def seventy():
    spin(14000)

class Worker:
    def twenty(self):
        return [spin(4000) for x in (1,)]

compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
libc = ctypes.CDLL(None)

def ten():
    pair = (ctypes.c_int * 2)(2, 1)
    # qsort calls back what Python gave it.
    libc.qsort(pair, 2, 4, compare(lambda a, b: spin(2000) * 0))

def measured(name, work):
    before = time.thread_time_ns()
    work()
    times[name] += time.thread_time_ns() - before

def main():
    worker = Worker()
    while not done:
        measured("seventy", seventy)
        measured("twenty", worker.twenty)
        measured("ten", ten)

times = {"seventy": 0, "twenty": 0, "ten": 0}
done = []
print("READY", os.getpid(), flush=True)
assert sys.stdin.readline() == "go\n"
thread = threading.Thread(target=main)
thread.start()
sys.stdin.readline()
done.append(True)
thread.join()
print(json.dumps({"values": times}), flush=True)
`

// pythons are Debian's CPython and those that pyenv has installed.
func pythons(t *testing.T) []string {
	found := []string{"/usr/bin/python3.11"}
	for _, minor := range []string{"12", "13"} {
		more, _ := filepath.Glob("/root/.pyenv/versions/3." + minor + ".*/bin/python3." + minor)
		found = append(found, more...)
	}
	return found
}

// TestProfilePython: Python functions with their lines, where the interpreter's
// loop is on the native stack, with the shares that the program measures.
func TestProfilePython(t *testing.T) {
	needRoot(t)
	script := filepath.Join(t.TempDir(), "shares.py")
	if err := os.WriteFile(script, []byte(pythonShares), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, python := range pythons(t) {
		t.Run(filepath.Base(python), func(t *testing.T) {
			p := targets.StartCmd(t, exec.Command(python, script))
			p.Ready()
			prof := profileOf(t, p.Go, "--pid", strconv.Itoa(p.PID()), "--hz", "999", "--duration", "2s")
			truth := p.Stop()
			functions := map[string]string{"seventy": "shares.seventy", "twenty": "shares.Worker.twenty", "ten": "shares.ten"}
			compareShares(t, prof, functions, truth.Values)
			checkPython(t, prof, script)
		})
	}
}

// compareShares compares the shares of functions in the samples with times that
// were measured, each by their sum.
func compareShares(t *testing.T, prof *profile.Profile, functions map[string]string, times map[string]int64) {
	t.Helper()
	var all int64
	worked := 0.0
	for id, function := range functions {
		all += times[id]
		worked += shareOf(prof, function)
	}
	if all == 0 || worked < 0.5 {
		t.Fatalf("%.1f %% of %d samples are in %v", 100*worked, samples(prof), functions)
	}
	for id, function := range functions {
		want, got := float64(times[id])/float64(all), shareOf(prof, function)/worked
		if tolerance := 0.03 + 3*math.Sqrt(want*(1-want)/float64(samples(prof))); math.Abs(got-want) > tolerance {
			t.Errorf("%s has %.1f %% of the samples, and %.1f %% of the time", function, 100*got, 100*want)
		}
	}
}

// checkPython checks the order of frames, and that each stands at its line.
func checkPython(t *testing.T, prof *profile.Profile, script string) {
	t.Helper()
	text, err := os.ReadFile(script)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	var python, whole, callbacks int64
	for _, s := range prof.Sample {
		frames := userFrames(s)
		at := slices.IndexFunc(frames, func(f string) bool { return strings.HasPrefix(f, "shares.") })
		if at < 0 {
			continue
		}
		python += s.Value[0]
		if i := slices.Index(frames, "shares.main"); i > at && slices.Contains(frames[i:], "threading.Thread.run") {
			whole += s.Value[0]
		}
		// C code between two Python functions stays between them.
		if spin, ten := slices.Index(frames, "shares.ten.<locals>.<lambda>"), slices.Index(frames, "shares.ten"); spin >= 0 {
			if ten < spin || !slices.Contains(frames[spin:ten], "qsort") && !slices.Contains(frames[spin:ten], "qsort_r") {
				t.Errorf("qsort is not between its caller and what it calls: %v", frames)
				return
			}
			callbacks += s.Value[0]
		}
		for _, f := range frames {
			if strings.HasPrefix(f, "_PyEval_EvalFrameDefault") && len(s.Label["incomplete"]) == 0 {
				python-- // an activation that has no frame yet
				break
			}
		}
		for _, l := range s.Location {
			if len(l.Line) == 0 {
				continue
			}
			fn := l.Line[0].Function
			if !strings.HasPrefix(fn.Name, "shares.") || fn.Filename != script {
				continue
			}
			line := lines[l.Line[0].Line-1]
			if want := map[string]string{"shares.seventy": "spin(14000)", "shares.Worker.twenty": "spin(4000)", "shares.ten.<locals>.<lambda>": "spin(2000)"}[fn.Name]; !strings.Contains(line, want) {
				t.Errorf("%s is at line %d: %s", fn.Name, l.Line[0].Line, line)
				return
			}
		}
	}
	if callbacks == 0 {
		t.Error("no sample is in the function that qsort calls")
	}
	if float64(whole) < 0.98*float64(python) {
		t.Errorf("%d of %d samples have all Python functions from the thread's start", whole, python)
	}
}

// nodeShares is pythonShares for Node.
const nodeShares = `'use strict'
function spin(n) { let s = 0; for (let i = 0; i < n; i++) s = (s * 31 + i) | 0; return s }
function seventy() { return spin(700000) + 1 }
function twenty() { return spin(200000) + 2 }
class Worker { ten() { return spin(100000) + 3 } }
const worker = new Worker()
const works = { seventy, twenty, third: () => worker.ten() }
const times = { seventy: 0, twenty: 0, third: 0 }
let done = false
function round() {
  for (const name in works) {
    const before = process.cpuUsage()
    works[name]()
    const used = process.cpuUsage(before)
    times[name] += used.user + used.system
  }
  if (!done) setImmediate(round)
  else { console.log(JSON.stringify({ values: times })); process.stdin.destroy() }
}
let lines = 0
process.stdin.on('data', data => {
  for (const c of data.toString()) if (c === '\n') lines++
  if (lines === 1) round()
  done = lines > 1
})
for (let i = 0; i < 200; i++) for (const name in works) works[name]()
console.log('READY', process.pid)
`

// TestProfileNode: functions of JavaScript with the file and line of their
// definition, from what node --perf-basic-prof writes.
func TestProfileNode(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	script := filepath.Join(dir, "shares.js")
	if err := os.WriteFile(script, []byte(nodeShares), 0o644); err != nil {
		t.Fatal(err)
	}
	p := targets.StartCmd(t, command(dir, "node", "--perf-basic-prof", script))
	t.Cleanup(func() { os.Remove(fmt.Sprintf("/tmp/perf-%d.map", p.PID())) })
	p.Ready()
	prof := profileOf(t, p.Go, "--pid", strconv.Itoa(p.PID()), "--hz", "999", "--duration", "2s")
	truth := p.Stop()
	compareShares(t, prof, map[string]string{"seventy": "seventy", "twenty": "twenty", "third": "ten"}, truth.Values)
	checkGenerated(t, prof, map[string][]int64{"seventy": {3}, "twenty": {4}, "ten": {5}}, script)
}

// erlangShares is pythonShares for Erlang; reductions are its measure of work.
const erlangShares = `-module(shares).
-export([main/0]).

seventy(0) -> ok;
seventy(N) -> seventy(N - 1).
twenty(0) -> ok;
twenty(N) -> twenty(N - 1).
ten(0) -> ok;
ten(N) -> ten(N - 1).

measured(Work) ->
  {reductions, Before} = process_info(self(), reductions),
  Work(),
  {reductions, After} = process_info(self(), reductions),
  After - Before.

loop(A, B, C) ->
  receive stop -> io:format("{\"values\":{\"seventy\":~p,\"twenty\":~p,\"ten\":~p}}~n", [A, B, C])
  after 0 ->
    loop(A + measured(fun() -> seventy(70000) end), B + measured(fun() -> twenty(20000) end), C + measured(fun() -> ten(10000) end))
  end.

main() ->
  io:format("READY ~s~n", [os:getpid()]),
  "go\n" = io:get_line(""),
  Worker = spawn_monitor(fun() -> loop(0, 0, 0) end),
  "quit\n" = io:get_line(""),
  element(1, Worker) ! stop,
  receive {'DOWN', _, process, _, _} -> halt() end.
`

// TestProfileBEAM: Erlang functions as Module:function/arity with their lines,
// from what erl +JPperf true writes.
func TestProfileBEAM(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	source := filepath.Join(dir, "shares.erl")
	if err := os.WriteFile(source, []byte(erlangShares), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("erlc", "-o", dir, source).CombinedOutput(); err != nil {
		t.Fatalf("erlc: %v\n%s", err, out)
	}
	p := targets.StartCmd(t, command(dir, "erl", "+JPperf", "true", "-noshell", "-pa", dir, "-s", "shares", "main"))
	t.Cleanup(func() {
		os.Remove(fmt.Sprintf("/tmp/perf-%d.map", p.PID()))
		os.Remove(fmt.Sprintf("/tmp/jit-%d.dump", p.PID()))
	})
	p.Ready()
	prof := profileOf(t, p.Go, "--pid", strconv.Itoa(p.PID()), "--hz", "999", "--duration", "2s")
	truth := p.Stop()
	compareShares(t, prof, map[string]string{"seventy": "shares:seventy/1", "twenty": "shares:twenty/1", "ten": "shares:ten/1"}, truth.Values)
	checkGenerated(t, prof, map[string][]int64{"shares:seventy/1": {4, 5}, "shares:twenty/1": {6, 7}, "shares:ten/1": {8, 9}}, source)
}

// command is a command that runs in dir, where runtimes leave logs and dumps.
func command(dir, name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	return cmd
}

// checkGenerated checks at which lines functions of generated code are.
func checkGenerated(t *testing.T, prof *profile.Profile, lines map[string][]int64, file string) {
	t.Helper()
	right := make(map[string]int64)
	for _, l := range prof.Location {
		for _, line := range l.Line {
			want, ok := lines[line.Function.Name]
			if !ok || line.Line == 0 {
				continue
			}
			if line.Function.Filename != file || !slices.Contains(want, line.Line) {
				t.Errorf("%s is at %s:%d", line.Function.Name, line.Function.Filename, line.Line)
			}
			right[line.Function.Name]++
		}
	}
	for name := range lines {
		if right[name] == 0 {
			t.Errorf("%s has no line", name)
		}
	}
}

// goLabels spends 70 and 30 parts of its time in goroutines with labels.
const goLabels = `package main

import (
	"context"
	"runtime/pprof"
	"time"
)

//go:noinline
func spin(n int) (s int) {
	for i := range n {
		s = s*31 + i
	}
	return s
}

func main() {
	sum := 0
	for begin := time.Now(); time.Since(begin) < 2*time.Second; {
		for route, n := range map[string]int{"/seventy": 700000, "/thirty": 300000} {
			pprof.Do(context.Background(), pprof.Labels("route", route, "pid", "own"), func(context.Context) {
				done := make(chan int)
				go func() { done <- spin(n) }() // inherits them
				sum += <-done
			})
		}
	}
	println(sum)
}
`

// TestProfileGoLabels: samples of Go programs have the labels that
// runtime/pprof has given to the goroutine, and its number.
func TestProfileGoLabels(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	for name, text := range map[string]string{"main.go": goLabels, "go.mod": "module golabels\n\ngo 1.22\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	build := command(dir, "go", "build", "-o", "golabels", ".")
	build.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	prof := profileOf(t, nil, "--hz", "999", "--", filepath.Join(dir, "golabels"))
	routes, all := map[string]int64{}, int64(0)
	for _, s := range prof.Sample {
		if !slices.Contains(names(s), "main.spin") {
			continue
		}
		all += s.Value[0]
		for _, route := range s.Label["route"] {
			routes[route] += s.Value[0]
		}
		if len(s.Label["route"]) > 0 && (!slices.Equal(s.Label["pprof.pid"], []string{"own"}) || len(s.NumLabel["pid"]) != 1 || len(s.NumLabel["goid"]) != 1) {
			t.Fatalf("labels %v, %v", s.Label, s.NumLabel)
		}
	}
	labelled := routes["/seventy"] + routes["/thirty"]
	if all == 0 || float64(labelled) < 0.95*float64(all) || len(routes) != 2 {
		t.Fatalf("of %d samples %v", all, routes)
	}
	share := float64(routes["/seventy"]) / float64(labelled)
	if tolerance := 0.05 + 3*math.Sqrt(0.21/float64(labelled)); math.Abs(share-0.7) > tolerance {
		t.Errorf("/seventy has %.1f %% of the samples", 100*share)
	}
}
