package loader

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
)

// Calibration is what a hit of a probe with an empty program costs the thread
// that it stops, on this machine, in nanoseconds.
type Calibration struct {
	// EntryEmulatedNS is for an instruction that the kernel emulates.
	EntryEmulatedNS uint32
	// EntrySteppedNS is for one that it executes out of line, single-stepped.
	EntrySteppedNS uint32
	// EntryNop5NS is for a nop of five bytes: from Linux 6.18 on x86 far less
	// than EntryEmulatedNS. It is 0 where there is no such instruction.
	EntryNop5NS uint32
	// ReturnNS is what a return probe adds to the hit at the entry.
	ReturnNS uint32
}

// Calibrate measures what probes cost here by attaching some to a few
// instructions of its own and running into them some thousand times. It takes
// about 20 ms; the kernel's slow detaching goes on in the background for
// some 50 ms more. Each value is the least of many short batches, so that work
// of other processes does not count, unless there is no CPU left at all.
//
// It takes the rights that tracing takes: errors wrap ErrPermission or
// ErrNotSupported where that is the reason, and ctx's error when it was done
// before the end.
func Calibrate(ctx context.Context) (Calibration, error) {
	g, err := newProvingGround()
	if err != nil {
		return Calibration{}, err
	}
	c, links, err := calibrate(ctx, g)
	go func() {
		closeLinks(links)
		g.Close()
	}()
	return c, err
}

// calibrate leaves it to the caller to detach and to close g, in this order.
func calibrate(ctx context.Context, g *provingGround) (Calibration, []link.Link, error) {
	var links []link.Link
	prog, multi, err := emptyProgram()
	if err != nil {
		return Calibration{}, nil, fmt.Errorf("load an empty program: %w", explain(err))
	}
	defer prog.Close()
	attach := func(ret bool, fns ...provingFunction) error {
		ls, err := g.attach(prog, multi, ret, fns...)
		links = append(links, ls...)
		if err != nil {
			return fmt.Errorf("attach to code of our own: %w", explain(err))
		}
		return nil
	}
	entries := []provingFunction{provingEmulated, provingReturn, provingStepped}
	if len(provingCode[provingNop5]) > 0 {
		entries = append(entries, provingNop5)
	}
	if err := attach(false, entries...); err != nil {
		return Calibration{}, links, err
	}
	if err := attach(true, provingReturn); err != nil {
		return Calibration{}, links, err
	}

	var c Calibration
	onOtherThread(func() { c, err = g.measure(ctx) })
	return c, links, err
}

// measure times hits of the probes that are in.
func (g *provingGround) measure(ctx context.Context) (Calibration, error) {
	// A single-stepped hit may take 25 times as long as the others.
	const batch, batchStepped = 64, 8
	var c Calibration
	var both uint32
	for _, m := range []struct {
		f     provingFunction
		batch int
		ns    *uint32
	}{
		{provingEmulated, batch, &c.EntryEmulatedNS},
		{provingStepped, batchStepped, &c.EntrySteppedNS},
		{provingReturn, batch, &both},
		{provingNop5, batch, &c.EntryNop5NS},
	} {
		if len(provingCode[m.f]) == 0 {
			continue
		}
		ns, err := g.least(ctx, m.f, m.batch)
		if err != nil {
			return Calibration{}, err
		}
		*m.ns = ns
	}
	c.ReturnNS = both - min(both, c.EntryEmulatedNS)
	return c, nil
}

// least is the time of one call of f in ns, in the fastest of some batches. What
// the call itself takes is a few ns and not worth telling apart.
func (g *provingGround) least(ctx context.Context, f provingFunction, batch int) (uint32, error) {
	const batches = 32
	best := time.Duration(math.MaxInt64)
	for range batches {
		if err := ctx.Err(); err != nil {
			return 0, fmt.Errorf("measure the cost of probes: %w", err)
		}
		start := time.Now()
		g.call(f, batch)
		best = min(best, time.Since(start))
	}
	return uint32(min(int64(best)/int64(batch), math.MaxUint32)), nil
}

// attach puts prog at the first instructions, or the returns, of functions,
// for this process alone. What it returns is to be closed, also on error.
func (g *provingGround) attach(prog *ebpf.Program, multi, ret bool, fns ...provingFunction) ([]link.Link, error) {
	exe, err := link.OpenExecutable(g.path)
	if err != nil {
		return nil, err
	}
	mod := &attached{path: g.path, pid: uint32(os.Getpid()), exe: exe}
	at := &sites{}
	for _, f := range fns {
		at.add(&Probe{Offset: f.offset()}, uint64(f))
	}
	return attachProbes(mod, prog, multi, ret, at)
}

// emptyProgram is a probe's program that does nothing, for uprobe_multi where
// the kernel has it.
func emptyProgram() (prog *ebpf.Program, multi bool, err error) {
	return probeProgram(asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()})
}

// probeProgram loads a probe's program, for uprobe_multi where the kernel has it.
func probeProgram(code asm.Instructions) (prog *ebpf.Program, multi bool, err error) {
	spec := &ebpf.ProgramSpec{Name: "sbxtrace_try", Type: ebpf.Kprobe, License: "Dual BSD/GPL", Instructions: code}
	multi, err = haveMulti()
	if err != nil {
		return nil, false, err
	}
	if multi {
		spec.AttachType = ebpf.AttachTraceUprobeMulti
	}
	prog, err = ebpf.NewProgram(spec)
	return prog, multi, err
}

// haveMulti reports whether the kernel has uprobe_multi links.
func haveMulti() (bool, error) {
	err := features.HaveBPFLinkUprobeMulti()
	if errors.Is(err, ebpf.ErrNotSupported) {
		return false, nil
	}
	return err == nil, err
}
