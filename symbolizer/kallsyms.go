package symbolizer

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// ErrKernelHidden: /proc/kallsyms lists the kernel's functions without their
// addresses. The error returned says which setting does so.
var ErrKernelHidden = errors.New("kernel addresses are hidden")

// KernelFunction is a function of the running kernel.
type KernelFunction struct {
	Name   string
	Module string // "ext4" of a loadable module, "bpf" of a loaded BPF program; empty for the kernel itself
	Addr   uint64
}

// KernelSymbols are the functions of the running kernel, its modules and the BPF
// programs that were loaded when it was read. It does not change and may be used
// concurrently. It takes about 4 MiB for 120,000 functions.
type KernelSymbols struct {
	addrs   []uint64 // sorted, one for each function
	names   []kernelName
	text    string // of all names
	modules []string
	end     uint64 // of the kernel's own code, 0 if unknown
	ends    map[string]uint64
}

// kernelName is the place of a name in text and its module.
type kernelName struct {
	off    uint32
	len    uint16
	module uint16 // index + 1, 0 for the kernel itself
}

// Limits on /proc/kallsyms: a kernel with everything built in has some 300,000
// lines of 50 bytes.
const (
	maxKallsyms        = 4 << 20 // functions
	maxKallsymsText    = 256 << 20
	maxKallsymsModules = 1 << 15
)

// ReadKernelSymbols reads the functions of the running kernel. It fails with
// ErrKernelHidden where the kernel does not tell their addresses to this
// process.
func ReadKernelSymbols() (*KernelSymbols, error) {
	f, err := os.Open(filepath.Join(procRoot, "kallsyms"))
	if err != nil {
		return nil, fmt.Errorf("kernel symbols: %w", err)
	}
	defer f.Close()
	k, err := ParseKallsyms(f)
	if errors.Is(err, ErrKernelHidden) {
		return nil, fmt.Errorf("%w: %s", err, hiddenHint(sysctl("kernel/kptr_restrict"), sysctl("kernel/perf_event_paranoid")))
	}
	if err != nil {
		return nil, err
	}
	if m, err := os.Open(filepath.Join(procRoot, "modules")); err == nil {
		k.ends = parseModules(m)
		m.Close()
	}
	return k, nil
}

func sysctl(name string) string {
	data, _ := os.ReadFile(filepath.Join(procRoot, "sys", name))
	return strings.TrimSpace(string(data))
}

// hiddenHint says what to do about hidden addresses: kallsyms_show_value in the
// kernel's kernel/ksyms_common.c.
func hiddenHint(restrict, paranoid string) string {
	switch {
	case restrict == "2":
		return "kernel.kptr_restrict is 2; set it with: sysctl kernel.kptr_restrict=1"
	case restrict == "0" && paranoid != "" && paranoid != "0" && paranoid != "1" && !strings.HasPrefix(paranoid, "-"):
		return "needs root (CAP_SYSLOG), or kernel.perf_event_paranoid of 1 or less"
	}
	return "needs root (CAP_SYSLOG)"
}

// ParseKallsyms reads the format of /proc/kallsyms: lines of "address type name"
// and, for modules, "[module]". Only code is kept. Of several names of one
// address one is chosen. It fails with ErrKernelHidden if all addresses are 0,
// and with ErrMalformed at a line that does not follow the format.
func ParseKallsyms(r io.Reader) (*KernelSymbols, error) {
	type symbol struct {
		addr uint64
		name kernelName
		kind byte
	}
	var (
		k       = &KernelSymbols{}
		syms    []symbol
		text    []byte
		modules = make(map[string]uint16)
		zeros   int
	)
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 4096), 64<<10)
	for lines.Scan() {
		addr, kind, name, module, ok := parseKallsym(lines.Bytes())
		if !ok {
			return nil, fmt.Errorf("kernel symbols: %w: line %.120q", ErrMalformed, lines.Bytes())
		}
		if string(name) == "_etext" && module == nil {
			k.end = addr
		}
		if kind != 't' && kind != 'T' && kind != 'w' && kind != 'W' {
			continue
		}
		if addr == 0 {
			zeros++
			continue
		}
		var number uint16
		if module != nil {
			if number, ok = modules[string(module)]; !ok {
				if len(k.modules) >= maxKallsymsModules {
					return nil, fmt.Errorf("kernel symbols: modules: %w", ErrTooLarge)
				}
				k.modules = append(k.modules, string(module))
				number = uint16(len(k.modules))
				modules[string(module)] = number
			}
		}
		if len(syms) >= maxKallsyms || len(text)+len(name) > maxKallsymsText || len(name) > 1<<16-1 {
			return nil, fmt.Errorf("kernel symbols: %w", ErrTooLarge)
		}
		syms = append(syms, symbol{addr, kernelName{uint32(len(text)), uint16(len(name)), number}, kind})
		text = append(text, name...)
	}
	if err := lines.Err(); err != nil {
		if errors.Is(err, bufio.ErrTooLong) {
			err = ErrMalformed
		}
		return nil, fmt.Errorf("kernel symbols: %w", err)
	}
	if len(syms) == 0 {
		if zeros > 0 {
			return nil, ErrKernelHidden
		}
		return nil, fmt.Errorf("kernel symbols: %w: no functions", ErrMalformed)
	}
	k.text = string(text)
	slices.SortStableFunc(syms, func(a, b symbol) int {
		return cmp.Or(cmp.Compare(a.addr, b.addr), compareKernelNames(k.name(a.name), k.name(b.name), a.kind, b.kind))
	})
	syms = slices.CompactFunc(syms, func(a, b symbol) bool { return a.addr == b.addr })
	k.addrs = make([]uint64, len(syms))
	k.names = make([]kernelName, len(syms))
	for i, s := range syms {
		k.addrs[i], k.names[i] = s.addr, s.name
	}
	return k, nil
}

func parseKallsym(line []byte) (addr uint64, kind byte, name, module []byte, ok bool) {
	number, rest, _ := bytes.Cut(line, []byte(" "))
	if len(rest) < 3 || rest[1] != ' ' {
		return 0, 0, nil, nil, false
	}
	addr, err := strconv.ParseUint(string(number), 16, 64)
	if err != nil {
		return 0, 0, nil, nil, false
	}
	name, module, _ = bytes.Cut(rest[2:], []byte("\t"))
	if module = bytes.TrimRight(module, " "); len(module) > 0 {
		if len(module) < 3 || module[0] != '[' || module[len(module)-1] != ']' {
			return 0, 0, nil, nil, false
		}
		module = module[1 : len(module)-1]
	}
	return addr, rest[0], name, module, len(name) > 0
}

// compareKernelNames orders the names of one address, the one to show first.
func compareKernelNames(a, b string, aKind, bKind byte) int {
	marks := func(name string) int { // of ranges, not functions
		switch name {
		case "_text", "_stext", "_etext", "_sinittext", "_einittext":
			return 1
		}
		return 0
	}
	rank := func(kind byte) int { return strings.IndexByte("TtWw", kind) }
	return cmp.Or(
		cmp.Compare(marks(a), marks(b)),
		cmp.Compare(underscores(a), underscores(b)),
		cmp.Compare(rank(aKind), rank(bKind)),
		cmp.Compare(a, b),
	)
}

// parseModules reads /proc/modules ("name size users … state address") and
// returns where each module ends. Lines of another form are skipped.
func parseModules(r io.Reader) map[string]uint64 {
	ends := make(map[string]uint64)
	lines := bufio.NewScanner(r)
	for lines.Scan() && len(ends) < maxKallsymsModules {
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 {
			continue
		}
		size, err := strconv.ParseUint(fields[1], 10, 64)
		addr, err2 := strconv.ParseUint(strings.TrimPrefix(fields[5], "0x"), 16, 64)
		if err == nil && err2 == nil && addr != 0 && addr+size > addr {
			ends[fields[0]] = addr + size
		}
	}
	return ends
}

func (k *KernelSymbols) name(n kernelName) string { return k.text[n.off : n.off+uint32(n.len)] }

// Len is the number of functions.
func (k *KernelSymbols) Len() int { return len(k.addrs) }

// maxKernelFunction bounds how far behind the last known function of the kernel,
// a module or a BPF program an address may lie and still be taken for it where
// the end is not known. The largest functions of the kernel have some 100 KiB.
const maxKernelFunction = 1 << 20

// Lookup returns the function of the kernel that has addr and how far into it
// the address is; ok is false where none is known.
func (k *KernelSymbols) Lookup(addr uint64) (fn KernelFunction, off uint64, ok bool) {
	i := sort.Search(len(k.addrs), func(i int) bool { return k.addrs[i] > addr }) - 1
	if i < 0 || addr-k.addrs[i] >= maxKernelFunction {
		return KernelFunction{}, 0, false
	}
	n := k.names[i]
	fn = KernelFunction{Name: k.name(n), Addr: k.addrs[i]}
	if n.module == 0 {
		// What follows is freed after booting.
		if k.end != 0 && addr >= k.end {
			return KernelFunction{}, 0, false
		}
	} else {
		fn.Module = k.modules[n.module-1]
		if end := k.ends[fn.Module]; end > fn.Addr && addr >= end {
			return KernelFunction{}, 0, false
		}
	}
	return fn, addr - fn.Addr, true
}
