package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/sbxtrace/sbxtrace/internal/testsum"
	"github.com/sbxtrace/sbxtrace/vmtests/guest"
)

const modulePath = "github.com/sbxtrace/sbxtrace"

// session collects the events of one machine.
type session struct {
	ctx   context.Context
	out   io.Writer
	c     *testsum.Collector
	tests []test
	image image
	name  string // of the kernel

	next   int // test whose start is awaited, or that runs
	booted bool
	done   bool
	output bytes.Buffer // of the running test
}

func (s *session) on(ev guest.Event) {
	switch ev.Kind {
	case guest.KindBoot:
		s.boot(ev)
	case guest.KindOutput:
		s.output.WriteString(ev.Text)
	case guest.KindEnd:
		s.end(ev)
	case guest.KindDone:
		s.done = true
	case guest.KindError:
		s.c.Fail("init", ev.Text)
	}
}

func (s *session) boot(ev guest.Event) {
	s.booted = true
	s.c.SetKernel(ev.Kernel)
	fmt.Fprintf(s.out, "booted %s in %.1f s\n", ev.Kernel, float64(ev.Millis)/1000)
	if ev.Kernel != s.image.release {
		s.c.Fail("kernel", fmt.Sprintf("the machine runs %s, expected %s", ev.Kernel, s.image.release))
	}
	if !ev.BTF {
		s.c.Fail("kernel types", "the kernel has no /sys/kernel/btf/vmlinux")
	}
	if ev.CPUs != cpus {
		s.c.Fail("processors", fmt.Sprintf("%d, expected %d", ev.CPUs, cpus))
	}
}

// end takes the result of a test binary and awaits the next one.
func (s *session) end(ev guest.Event) {
	if s.next >= len(s.tests) || s.tests[s.next].Name != ev.Job {
		s.c.Fail(ev.Job, "the end of a test that was not expected")
		return
	}
	t := s.tests[s.next]
	s.next++
	s.finish(t, ev)
}

// finish counts the tests of a binary that has ended, or that never will.
func (s *session) finish(t test, ev guest.Event) {
	passed := s.c.Passed()
	pkg := path.Join(modulePath, t.Package)
	if err := s.decode(pkg); err != nil {
		s.c.Fail(t.Name, err.Error())
	}
	s.output.Reset()
	end := testsum.Event{Action: "pass", Package: pkg, Elapsed: float64(ev.Millis) / 1000}
	if ev.Code != 0 {
		end.Action = "fail"
		s.c.Add(testsum.Event{Action: "output", Package: pkg, Output: ev.Text + "\n"})
	}
	s.c.Add(end)
	if n := s.c.Passed() - passed; n < t.MinPass[s.name] {
		s.c.Fail(t.Name+" (number of tests)", fmt.Sprintf("%d passed, expected %d or more", n, t.MinPass[s.name]))
	}
}

// decode turns a test binary's output into events, as go test does it, up to
// the package's own result: that follows from how the binary ended.
func (s *session) decode(pkg string) error {
	cmd := exec.CommandContext(s.ctx, "go", "tool", "test2json", "-p", pkg)
	cmd.Stdin = &s.output
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("decode output: %w", commandError(err))
	}
	for dec := json.NewDecoder(bytes.NewReader(out)); dec.More(); {
		var ev testsum.Event
		if err := dec.Decode(&ev); err != nil {
			return fmt.Errorf("decode output: %w", err)
		}
		if ev.Test != "" || ev.Action == "output" {
			s.c.Add(ev)
		}
	}
	return nil
}

// runKernel boots a kernel, runs its tests and returns the result, saved.
func runKernel(ctx context.Context, o options, k kernel, img image, root *tree, m *manifest, skips testsum.SkipList) (*testsum.Group, error) {
	name := groupName(k)
	if err := testsum.Forget(o.results, name); err != nil {
		return nil, err
	}
	tests := m.testsFor(k.Name)
	vm := &machine{
		kernel:   img.path,
		memoryMB: k.MemoryMB,
		dir:      filepath.Join(o.cache, "vmtests", k.Name),
		limit:    bootSeconds * time.Second,
	}
	for _, t := range tests {
		vm.limit += time.Duration(t.Seconds+15) * time.Second
	}
	vm.initramfs = filepath.Join(vm.dir, "initramfs.cpio")
	if err := os.MkdirAll(vm.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make directory for logs: %w", err)
	}
	if err := root.forKernel(k, m.Env, tests); err != nil {
		return nil, err
	}
	if err := root.write(vm.initramfs); err != nil {
		return nil, err
	}
	fmt.Printf("\n%s: booting %s, logs in %s\n", name, img.release, vm.dir)
	s := &session{
		ctx: ctx, out: os.Stdout, c: testsum.NewCollector(os.Stdout, name, skips, true),
		tests: tests, image: img, name: k.Name,
	}
	s.c.SetKernel(img.release)
	s.close(vm, vm.run(ctx, s.on))
	g := s.c.Close()
	return g, g.Save(o.results)
}

// close accounts for all that should have come and did not.
func (s *session) close(m *machine, runErr error) {
	if trouble, err := m.trouble(); err != nil {
		s.c.Fail("console", err.Error())
	} else if trouble != "" {
		s.c.Fail("kernel complaint", trouble)
	}
	if runErr == nil && s.booted && s.done && s.next == len(s.tests) {
		return
	}
	if s.output.Len() > 0 && s.next < len(s.tests) {
		s.finish(s.tests[s.next], guest.Event{Code: 1, Text: "the machine ended during the test"})
		s.next++
	}
	var missing []string
	for _, t := range s.tests[s.next:] {
		missing = append(missing, t.Name)
	}
	why := "it powered off early"
	if runErr != nil {
		why = runErr.Error()
	}
	if len(missing) > 0 {
		why += "; not run: " + strings.Join(missing, ", ")
	}
	s.c.Fail("machine", why+"\nlast lines of the console:\n"+m.consoleTail())
}

func groupName(k kernel) string { return "vm-" + k.Name }
