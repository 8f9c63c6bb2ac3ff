package exporter

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/pprof/profile"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares got with testdata/name.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (go test ./exporter -update writes it)\n--- got\n%s\n--- want\n%s", file, got, want)
	}
}

// builder makes profiles of a few words: frames are "name@module file:line", the
// innermost last, those of one location joined by " > ".
type builder struct {
	p         *profile.Profile
	mappings  map[string]*profile.Mapping
	functions map[string]*profile.Function
	locations map[string]*profile.Location
}

func newBuilder(types ...*profile.ValueType) *builder {
	if len(types) == 0 {
		types = []*profile.ValueType{{Type: "samples", Unit: "count"}, {Type: "cpu", Unit: "nanoseconds"}}
	}
	return &builder{
		p:        &profile.Profile{SampleType: types, PeriodType: &profile.ValueType{Type: "cpu", Unit: "nanoseconds"}, Period: 10_000_000},
		mappings: map[string]*profile.Mapping{}, functions: map[string]*profile.Function{}, locations: map[string]*profile.Location{},
	}
}

func (b *builder) mapping(file string) *profile.Mapping {
	m := b.mappings[file]
	if m == nil {
		n := uint64(len(b.p.Mapping)) + 1
		m = &profile.Mapping{ID: n, Start: n << 32, Limit: n<<32 + 1<<24, File: file, BuildID: strings.Repeat(string(rune('a'+n)), 40), HasFunctions: true}
		b.mappings[file] = m
		b.p.Mapping = append(b.p.Mapping, m)
	}
	return m
}

func (b *builder) location(text string) *profile.Location {
	if l := b.locations[text]; l != nil {
		return l
	}
	l := &profile.Location{ID: uint64(len(b.p.Location)) + 1}
	for i, frame := range strings.Split(text, " > ") {
		where, source, _ := strings.Cut(frame, " ")
		name, file, mapped := strings.Cut(where, "@")
		name = strings.ReplaceAll(name, "~", " ")
		if i == 0 && mapped {
			l.Mapping = b.mapping(file)
			l.Address = l.Mapping.Start + 0x1000 + 16*l.ID
		}
		if name == "" {
			continue
		}
		line := int64(0)
		if path, n, ok := strings.Cut(source, ":"); ok {
			source = path
			for _, d := range n {
				line = 10*line + int64(d-'0')
			}
		}
		f := b.functions[where]
		if f == nil {
			f = &profile.Function{ID: uint64(len(b.p.Function)) + 1, Name: name, SystemName: name, Filename: source}
			b.functions[where] = f
			b.p.Function = append(b.p.Function, f)
		}
		// What is inlined comes first.
		l.Line = append([]profile.Line{{Function: f, Line: line}}, l.Line...)
	}
	b.locations[text] = l
	b.p.Location = append(b.p.Location, l)
	return l
}

// sample adds n samples of 10 ms of a stack, frames from the root joined by
// "; ". Labels are pairs.
func (b *builder) sample(n int64, stack string, labels ...any) *profile.Sample {
	s := &profile.Sample{Label: map[string][]string{}, NumLabel: map[string][]int64{}, NumUnit: map[string][]string{}}
	for i := range b.p.SampleType {
		s.Value = append(s.Value, n)
		if i > 0 {
			s.Value[i] = n * 10_000_000
		}
	}
	if stack != "" {
		for _, frame := range strings.Split(stack, "; ") {
			s.Location = append([]*profile.Location{b.location(frame)}, s.Location...)
		}
	}
	for i := 0; i < len(labels); i += 2 {
		switch v := labels[i+1].(type) {
		case string:
			s.Label[labels[i].(string)] = []string{v}
		case int:
			s.NumLabel[labels[i].(string)] = []int64{int64(v)}
		}
	}
	b.p.Sample = append(b.p.Sample, s)
	return s
}

// cacheServer is a profile as of a server in C, its libraries and the kernel: the
// numbers of samples are those of the stacks below, 1000 in all.
func cacheServer() *profile.Profile {
	b := newBuilder()
	p := b.p
	p.TimeNanos, p.DurationNanos = 1_800_000_000_000_000_000, 10_500_000_000
	p.Comments = []string{"sbxtrace profile --pid 4711 --duration 10s"}
	server, libc, kernel := "@/usr/bin/cache-server", "@/usr/lib/x86_64-linux-gnu/libc.so.6", "@[kernel.kallsyms]"
	start := "_start" + server + "; __libc_start_main" + libc + "; main" + server + " server.c:6912; "
	loop := start + "event_loop" + server + " ae.c:483 > process_events" + server + " ae.c:411; "
	read := loop + "read_query" + server + " net.c:2611; "
	run := read + "execute" + server + " server.c:3411; "
	main := []any{"pid", 4711, "tid", 4711, "comm", "cache-server", "thread", "cache-server"}
	io1 := []any{"pid", 4711, "tid", 4712, "comm", "cache-server", "thread", "io_thd_1"}
	b.sample(180, run+"get_command"+server+" t_string.c:81; lookup_key"+server+" db.c:132; dict_find"+server+" dict.c:521", main...)
	b.sample(40, run+"get_command"+server+" t_string.c:84; add_reply"+server+" net.c:420", main...)
	b.sample(150, run+"set_command"+server+" t_string.c:61; create_object"+server+" object.c:33; malloc"+libc, main...)
	b.sample(60, run+"set_command"+server+" t_string.c:66; dict_find"+server+" dict.c:527", main...)
	b.sample(90, read+"parse_query"+server+" net.c:2188", main...)
	b.sample(200, read+"read"+libc+"; entry_SYSCALL_64"+kernel+"; do_syscall_64"+kernel+"; ksys_read"+kernel+"; tcp_recvmsg"+kernel, main...)
	b.sample(160, loop+"write_reply"+server+" net.c:1811; write"+libc+"; entry_SYSCALL_64"+kernel+"; do_syscall_64"+kernel+"; ksys_write"+kernel+"; tcp_sendmsg"+kernel, main...)
	b.sample(80, "clone3"+libc+"; start_thread"+libc+"; io_main"+server+" io.c:77; write_reply"+server+" net.c:1815; write"+libc, io1...)
	b.sample(34, "clone3"+libc+"; start_thread"+libc+"; io_main"+server+" io.c:79", io1...)
	b.sample(4, "@/usr/lib/x86_64-linux-gnu/libz.so.1", append([]any{LabelIncomplete, "no unwind table"}, io1...)...)
	b.sample(2, "dict_find"+server+" dict.c:521", append([]any{LabelIncomplete, "stack too deep"}, main...)...)
	return p
}

// slowerServer is cacheServer with more time in dict_find and no parse_query.
func slowerServer() *profile.Profile {
	p := cacheServer()
	kept := p.Sample[:0]
	for _, s := range p.Sample {
		switch s.Location[0].Line {
		case nil:
		default:
			switch s.Location[0].Line[0].Function.Name {
			case "dict_find":
				s.Value[0] *= 3
				s.Value[1] *= 3
			case "parse_query":
				continue
			}
		}
		kept = append(kept, s)
	}
	p.Sample = kept
	return p.Compact()
}

// polyglot has a stack of each language that frames can be of, and names that
// want to be more than names.
func polyglot() *profile.Profile {
	b := newBuilder()
	b.sample(30, "runtime.main@/srv/app proc.go:283; main.main@/srv/app main.go:12; github.com/acme/shop/cart.(*Cart).Add@/srv/app cart.go:40")
	b.sample(25, "core::ops::function::FnOnce::call_once@/srv/app x.rs:1; <shop::Cart~as~shop::Basket>::add@/srv/app cart.rs:9")
	b.sample(20, "std::vector<int,~std::allocator<int>>::push_back(int~const&)@/srv/libshop.so vector.h:1201")
	b.sample(10, "handle_checkout@/usr/bin/python3.11 shop.py:31")
	b.sample(9, "gen_server:handle_msg/6@/usr/lib/erlang/beam.smp; 'Elixir.Shop':add/2@/usr/lib/erlang/beam.smp")
	b.sample(8, "LazyCompile:*add~/srv/cart.js:10@/tmp/perf-99.map")
	b.sample(7, "</script><script>alert(1)</script>@/srv/app; <img~src=x~onerror=alert(2)>;x@/srv/app \"><b>.c:3")
	b.sample(6, "]]><!--&amp;{{data}}\"'`$&\u202e\x1b[31m@/srv/<b>&.so")
	b.sample(5, "@[kernel.kallsyms]; vfs_read@[kernel.kallsyms]")
	return b.p
}

// write returns p in a format.
func write(t testing.TB, p *profile.Profile, format Format, opt Options) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := WriteProfile(&out, p, format, opt); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// diffOf compares two profiles.
func diffOf(t testing.TB, p, base *profile.Profile) *profile.Profile {
	t.Helper()
	d, err := Diff(p, base)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// totals are the sums of all values by type.
func totals(p *profile.Profile) []int64 {
	sums := make([]int64, len(p.SampleType))
	for _, s := range p.Sample {
		for i, v := range s.Value {
			sums[i] += v
		}
	}
	return sums
}

// manyStacks is a profile of n samples of different stacks of that depth, which
// part a level at a time as those of real programs do.
func manyStacks(n, different, depth int) *profile.Profile {
	b := newBuilder()
	names := make([]*profile.Location, 400)
	for i := range names {
		names[i] = b.location("function_" + string(rune('a'+i%26)) + "_" + strings.Repeat("x", i/26) + "@/usr/bin/many many.c:1")
	}
	b.p.Sample = make([]*profile.Sample, 0, n)
	for i := range n {
		s := &profile.Sample{Value: []int64{1, 10_000_000}, Location: make([]*profile.Location, depth)}
		for d := range depth {
			k := i % different
			for range d {
				k = k * 7 / 20
			}
			s.Location[d] = names[(k*31+d)%len(names)]
		}
		b.p.Sample = append(b.p.Sample, s)
	}
	return b.p
}
