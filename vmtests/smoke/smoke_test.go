// Package smoke holds the smallest tests that touch what all of sbxtrace rests
// on: a uprobe with a cookie and a program behind it. When they fail on a
// machine, the machine is at fault and not the tracer.
package smoke

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
)

const (
	calls  = 1000
	cookie = 0x1122334455667788
)

// hits is what the program leaves in its map.
type hits struct {
	Count  uint64
	Cookie uint64 // of the last hit
}

//go:noinline
func probed(n int) int { return n + 1 }

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

func TestKernelTypes(t *testing.T) {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := spec.AnyTypesByName("task_struct"); err != nil {
		t.Error(err)
	}
}

// TestUprobe attaches through a perf event, which every supported kernel has.
func TestUprobe(t *testing.T) {
	needRoot(t)
	exe, offset := self(t)
	prog, counts := counter(t, ebpf.AttachNone)
	up, err := exe.Uprobe("", prog, &link.UprobeOptions{Address: offset, PID: os.Getpid(), Cookie: cookie})
	if err != nil {
		t.Fatal(err)
	}
	checkHits(t, up, counts)
}

// TestUprobeMulti attaches through a uprobe_multi link, or learns in time that
// the kernel has none.
func TestUprobeMulti(t *testing.T) {
	needRoot(t)
	exe, offset := self(t)
	// Attaching itself is no probe: an old kernel calls it an invalid argument.
	err := features.HaveBPFLinkUprobeMulti()
	if !kernelAtLeast(t, 6, 6) {
		if !errors.Is(err, ebpf.ErrNotSupported) {
			t.Fatalf("kernel without uprobe_multi says %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	prog, counts := counter(t, ebpf.AttachTraceUprobeMulti)
	up, err := exe.UprobeMulti(nil, prog, &link.UprobeMultiOptions{
		Addresses: []uint64{offset}, Cookies: []uint64{cookie},
	})
	if err != nil {
		t.Fatal(err)
	}
	checkHits(t, up, counts)
}

// checkHits calls the probed function, detaches, and calls it again: each of
// the first calls has to be counted and none of the others.
func checkHits(t *testing.T, up link.Link, counts *ebpf.Map) {
	t.Helper()
	n := 0
	for range calls {
		n = probed(n)
	}
	if err := up.Close(); err != nil {
		t.Fatal(err)
	}
	for range calls {
		n = probed(n)
	}
	if n != 2*calls {
		t.Fatalf("the probed function was called %d times, want %d", n, 2*calls)
	}
	var got hits
	if err := counts.Lookup(uint32(0), &got); err != nil {
		t.Fatal(err)
	}
	if want := (hits{calls, cookie}); got != want {
		t.Errorf("hits = %+v, want %+v", got, want)
	}
}

// counter loads a program that counts its hits and keeps the cookie of the last.
func counter(t *testing.T, attach ebpf.AttachType) (*ebpf.Program, *ebpf.Map) {
	t.Helper()
	counts, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 16, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { counts.Close() })
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:       ebpf.Kprobe,
		AttachType: attach,
		License:    "Dual BSD/GPL",
		Instructions: asm.Instructions{
			asm.FnGetAttachCookie.Call(), // of the context, which is in r1
			asm.Mov.Reg(asm.R6, asm.R0),
			asm.StoreImm(asm.RFP, -4, 0, asm.Word),
			asm.LoadMapPtr(asm.R1, counts.FD()),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, -4),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "out"),
			asm.StoreMem(asm.R0, 8, asm.R6, asm.DWord),
			asm.Mov.Imm(asm.R1, 1),
			asm.StoreXAdd(asm.R0, asm.R1, asm.DWord),
			asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
			asm.Return(),
		},
	})
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { prog.Close() })
	return prog, counts
}

// self returns this executable and the file offset of the probed function.
func self(t *testing.T) (*link.Executable, uint64) {
	t.Helper()
	exe, err := link.OpenExecutable("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	offset, err := fileOffset(uint64(reflect.ValueOf(probed).Pointer()))
	if err != nil {
		t.Fatal(err)
	}
	return exe, offset
}

// fileOffset translates an address of this process to an offset in the file
// mapped there.
func fileOffset(addr uint64) (uint64, error) {
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return 0, fmt.Errorf("open memory map: %w", err)
	}
	defer maps.Close()
	lines := bufio.NewScanner(maps)
	for lines.Scan() {
		var start, end, offset uint64
		var perms string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s %x", &start, &end, &perms, &offset); err != nil {
			return 0, fmt.Errorf("parse memory map: %w", err)
		}
		if start <= addr && addr < end {
			return addr - start + offset, nil
		}
	}
	return 0, errors.Join(fmt.Errorf("address %#x is not mapped", addr), lines.Err())
}

func kernelAtLeast(t *testing.T, major, minor int) bool {
	t.Helper()
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	f := strings.SplitN(string(release), ".", 3)
	if len(f) < 3 {
		t.Fatalf("kernel release %q", release)
	}
	ma, err1 := strconv.Atoi(f[0])
	mi, err2 := strconv.Atoi(f[1])
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return ma > major || ma == major && mi >= minor
}
