package loader

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sbxtrace/sbxtrace/trace"
)

type nop struct{}

func (nop) Event(*trace.Event) {}
func (nop) Tick(uint64)        {}

// needRoot skips a test that loads BPF programs where that is not allowed.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("loading BPF programs takes root")
	}
}

// Every combination of settings leaves other code for the verifier to accept.
func TestLoad(t *testing.T) {
	needRoot(t)
	for name, c := range map[string]Config{
		"count":           {},
		"latency":         {Level: LevelLatency},
		"calls":           {Level: LevelCalls},
		"args":            {Level: LevelArgs},
		"stacks":          {Level: LevelStacks},
		"calls filtered":  {Level: LevelCalls, MinDuration: 1, MaxDepth: 3, Sample: 4},
		"args filtered":   {Level: LevelArgs, MinDuration: 1},
		"stacks filtered": {Level: LevelStacks, MaxDepth: 2},
		"stacks kept":     {Level: LevelStacks, MinDuration: 1, MaxDepth: 3, Sample: 4},
		"announced":       {Level: LevelCalls, Announce: true},
		"static":          {Level: LevelCalls, Static: true},
		"threads":         {Level: LevelCalls, Comm: "x", TIDs: []uint32{1}, Follow: true, StopOnExec: true},
		"perf events":     {Level: LevelCalls, Mode: AttachPerf},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := New(c)
			if err != nil {
				t.Fatalf("%+v", err)
			}
			defer s.Close()
			ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
			defer cancel()
			if err := s.Run(ctx, nop{}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestLoadProfile(t *testing.T) {
	needRoot(t)
	for name, c := range map[string]ProfileConfig{
		"default":   {},
		"all":       {All: true, Rate: 999},
		"user only": {NoKernel: true, Follow: true},
		"off-cpu":   {Event: SampleOffCPU},
		"lock":      {Event: SampleLock, Wakers: true},
		"wall":      {Event: SampleWall, All: true},
		"faults":    {Event: SampleFaults, Period: 10},
		"calls":     {Event: SampleCalls},
		"allocs":    {Event: SampleAllocs, Period: 100},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := NewProfile(c)
			if err != nil {
				t.Fatalf("%+v", err)
			}
			defer p.Close()
			if err := p.Start(); err != nil {
				t.Fatalf("%+v", err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
			defer cancel()
			if err := p.Run(ctx, nop{}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestProfileRate(t *testing.T) {
	limit, err := MaxSampleRate()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewProfile(ProfileConfig{Rate: limit + 1}); !errors.Is(err, ErrRate) || !strings.Contains(err.Error(), strconv.Itoa(limit)) {
		t.Errorf("%d samples a second: %v", limit+1, err)
	}
}
