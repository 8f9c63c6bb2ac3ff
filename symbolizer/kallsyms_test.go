package symbolizer

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
)

const kallsymsSample = `0000000000000000 A fixed_percpu_data
ffffffff81000000 T srso_alias_untrain_ret
ffffffff81000000 T _stext
ffffffff81000000 T _text
ffffffff81001000 T __x64_sys_read
ffffffff81001000 t ksys_read_alias
ffffffff81002000 W weak_one
ffffffff81003000 D some_data
ffffffff81004000 T _etext
ffffffffc0000000 t ext4_read	[ext4]
ffffffffc0000100 t ext4_write	[ext4]
ffffffffc0300000 t bpf_prog_6deef7357e7b4530_sd_fw_egress	[bpf]
`

func TestKallsyms(t *testing.T) {
	k, err := ParseKallsyms(strings.NewReader(kallsymsSample))
	if err != nil {
		t.Fatal(err)
	}
	k.ends = parseModules(strings.NewReader("ext4 4096 1 - Live 0xffffffffc0000000\nodd line\nhidden 1 0 - Live 0x0\n"))
	for addr, want := range map[uint64]string{
		0:                  "",
		0xffffffff80ffffff: "",
		0xffffffff81000000: "srso_alias_untrain_ret",
		0xffffffff81001010: "ksys_read_alias", // no underscores before it
		0xffffffff81002fff: "weak_one",
		0xffffffff81003fff: "weak_one", // data is no function
		0xffffffff81004000: "",         // the end of the code
		0xffffffffbfffffff: "",
		0xffffffffc0000004: "ext4_read ext4",
		0xffffffffc0000fff: "ext4_write ext4",
		0xffffffffc0001000: "", // behind the module
		0xffffffffc0300040: "bpf_prog_6deef7357e7b4530_sd_fw_egress bpf",
		0xffffffffffffffff: "",
	} {
		fn, off, ok := k.Lookup(addr)
		if got := strings.TrimSpace(fn.Name + " " + fn.Module); got != want || ok != (want != "") || ok && fn.Addr+off != addr {
			t.Errorf("%#x is %q+%#x, %v; want %q", addr, got, off, ok, want)
		}
	}
}

func TestKallsymsHidden(t *testing.T) {
	_, err := ParseKallsyms(strings.NewReader("0000000000000000 T _stext\n0000000000000000 t foo\t[mod]\n"))
	if !errors.Is(err, ErrKernelHidden) {
		t.Errorf("all addresses 0: %v", err)
	}
	for _, c := range []struct{ restrict, paranoid, want string }{
		{"2", "2", "sysctl kernel.kptr_restrict=1"},
		{"1", "2", "needs root (CAP_SYSLOG)"},
		{"0", "2", "perf_event_paranoid"},
		{"0", "-1", "needs root (CAP_SYSLOG)"},
	} {
		if got := hiddenHint(c.restrict, c.paranoid); !strings.Contains(got, c.want) {
			t.Errorf("kptr_restrict %s, perf_event_paranoid %s: %q", c.restrict, c.paranoid, got)
		}
	}
	for _, bad := range []string{"", "zz T name\n", "ffffffff81000000 T\n", "ffffffff81000000 T name\tnobrackets\n", strings.Repeat("f", 70000)} {
		if _, err := ParseKallsyms(strings.NewReader(bad)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%.30q: %v", bad, err)
		}
	}
}

// TestKernelSymbols: every function of this kernel has a name that the kernel
// gives to its address.
func TestKernelSymbols(t *testing.T) {
	k, err := ReadKernelSymbols()
	if err != nil {
		if os.Geteuid() != 0 && errors.Is(err, ErrKernelHidden) {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	data, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[uint64][]string)
	for line := range bytes.Lines(data) {
		addr, kind, name, _, ok := parseKallsym(bytes.TrimRight(line, "\n"))
		if ok && bytes.IndexByte([]byte("tTwW"), kind) >= 0 {
			names[addr] = append(names[addr], string(name))
		}
	}
	if k.Len() < 10000 {
		t.Fatalf("%d functions", k.Len())
	}
	found := 0
	for i := range k.addrs {
		fn, off, ok := k.Lookup(k.addrs[i])
		if !ok { // behind _etext: code that is used while booting
			continue
		}
		found++
		if off != 0 || !slices.Contains(names[k.addrs[i]], fn.Name) {
			t.Fatalf("%#x is %s+%d; the kernel calls it %q", k.addrs[i], fn.Name, off, names[k.addrs[i]])
		}
	}
	if found < k.Len()/2 {
		t.Errorf("%d of %d functions have names", found, k.Len())
	}
	var entry uint64
	for addr, all := range names {
		if slices.Contains(all, "do_syscall_64") || slices.Contains(all, "do_el0_svc") {
			entry = addr
		}
	}
	if fn, off, ok := k.Lookup(entry + 4); !ok || off != 4 || fn.Module != "" {
		t.Errorf("the system call entry is %+v+%d, %v", fn, off, ok)
	}
}

func BenchmarkKernelLookup(b *testing.B) {
	k, err := ReadKernelSymbols()
	if err != nil {
		b.Skip(err)
	}
	for i := range b.N {
		k.Lookup(k.addrs[i*7919%len(k.addrs)] + 3)
	}
}

func FuzzKallsyms(f *testing.F) {
	f.Add([]byte(kallsymsSample))
	f.Add([]byte("0000000000000000 T _stext\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := ParseKallsyms(bytes.NewReader(data))
		if (k == nil) == (err == nil) {
			t.Fatalf("%v and error %v", k, err)
		}
		if err != nil {
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrKernelHidden) && !errors.Is(err, ErrTooLarge) {
				t.Fatalf("unexpected kind of error: %v", err)
			}
			return
		}
		k.ends = parseModules(bytes.NewReader(data))
		for i, addr := range k.addrs {
			if i > 0 && k.addrs[i-1] >= addr {
				t.Fatal("not sorted")
			}
			if fn, off, ok := k.Lookup(addr); ok && (off != 0 || fn.Name == "") {
				t.Fatalf("%#x is %+v+%d", addr, fn, off)
			}
		}
	})
}
