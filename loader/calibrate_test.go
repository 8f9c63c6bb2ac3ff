package loader

import (
	"bytes"
	"context"
	"errors"
	"os"
	"testing"
	"time"
)

// Timing proves little on a busy machine, but the order of the costs holds
// everywhere: whatever the kernel executes out of line takes two traps.
func TestCalibrate(t *testing.T) {
	needRoot(t)
	start := time.Now()
	c, err := Calibrate(t.Context())
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Logf("%+v in %v", c, time.Since(start))
	if c.EntryEmulatedNS < 50 || c.EntrySteppedNS < c.EntryEmulatedNS {
		t.Errorf("%+v: want an emulated hit to cost more than a call, and a single-stepped one more than that", c)
	}
	if c.ReturnNS == 0 || c.ReturnNS > c.EntrySteppedNS {
		t.Errorf("%+v: want a return to cost something, and less than single-stepping", c)
	}
	if (c.EntryNop5NS == 0) != (len(provingCode[provingNop5]) == 0) {
		t.Errorf("%+v: EntryNop5NS is there if the instruction is", c)
	}
}

func TestCalibrateCancelled(t *testing.T) {
	needRoot(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if c, err := Calibrate(ctx); !errors.Is(err, context.Canceled) || c != (Calibration{}) {
		t.Errorf("got %+v, %v; want nothing and the context's error", c, err)
	}
}

func TestCalibrateLeavesNothing(t *testing.T) {
	needRoot(t)
	before := openFiles(t)
	for range 3 {
		if _, err := Calibrate(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	// Detaching goes on in the background.
	deadline := time.Now().Add(time.Minute)
	for openFiles(t) > before || mapped(t, "sbxtrace-proving-ground") {
		if time.Now().After(deadline) {
			t.Fatalf("%d files open, %d before; code mapped: %v", openFiles(t), before, mapped(t, "sbxtrace-proving-ground"))
		}
		time.Sleep(time.Millisecond)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

func mapped(t *testing.T, name string) bool {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Contains(maps, []byte(name))
}

// The code runs as it is, in memory and in a file.
func TestProvingGround(t *testing.T) {
	page := provingPage()
	for name, create := range map[string]func([]byte) (*provingGround, error){"memory": memoryGround, "file": fileGround} {
		t.Run(name, func(t *testing.T) {
			g, err := create(page)
			if err != nil {
				t.Fatal(err)
			}
			for f := range provingFunctions {
				if len(provingCode[f]) > 0 {
					g.call(f, 3)
				}
			}
			path, temp := g.path, g.temp
			if err := g.Close(); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(path); temp && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is still there: %v", path, err)
			}
		})
	}
}

func TestOnOtherThread(t *testing.T) {
	for range 20 {
		called := false
		onOtherThread(func() { called = threadID() != os.Getpid() })
		if !called {
			t.Fatal("not called, or on the first thread")
		}
	}
}

func BenchmarkCalibrate(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("loading BPF programs takes root")
	}
	for b.Loop() {
		if _, err := Calibrate(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}
