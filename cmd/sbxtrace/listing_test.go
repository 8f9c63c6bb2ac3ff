package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/sbxtrace/sbxtrace/symbolizer"
	"github.com/sbxtrace/sbxtrace/tracer"
	"github.com/sbxtrace/sbxtrace/uprobes"
)

// someListing has one of everything.
func someListing() *tracer.Listing {
	server := &tracer.ListedModule{Name: "server", Path: "/srv/bin/server", Main: true}
	lib := &tracer.ListedModule{Name: "libparser.so.3", Path: "/usr/lib/libparser.so.3"}
	entry := func(off uint64, class uprobes.InsnClass, reason string) uprobes.Site {
		return uprobes.Site{Offset: off, Class: class, Reason: reason}
	}
	ret := func(role uprobes.Role, class uprobes.InsnClass) uprobes.Site {
		return uprobes.Site{Role: role, Class: class, Reason: role.String()}
	}
	fn := func(name, symbol string, addr, size uint64, lang symbolizer.Lang, source symbolizer.FuncSource) symbolizer.Function {
		return symbolizer.Function{Name: name, Symbol: symbol, Addr: addr, Offset: addr - 0x400000, Size: size, Lang: lang, Source: source}
	}
	goFn := fn("main.(*server).handle", "main.(*server).handle", 0x401000, 1234, symbolizer.LangGo, symbolizer.SourcePclntab)
	goFn.Package = "main"
	cFn := fn("read_line", "read_line", 0x402000, 80, symbolizer.LangC, symbolizer.SourceSymtab)
	cFn.Aliases = []string{"__read_line", "get_line"}
	cpp := fn("json::parser<std::basic_string_view<char> >::parse_array(json::value&, unsigned long)",
		"_ZN4json6parserI", 0x403000, 4096, symbolizer.LangCPP, symbolizer.SourceDebugFile)
	ifunc := fn("copy", "copy", 0x404000, 16, symbolizer.LangC, symbolizer.SourceDynsym)
	hostile := fn("evil\x1b[31m\nname", "evil\x1b[31m\nname", 0x405000, 3, symbolizer.LangC, symbolizer.SourceSymtab)
	usdt := uprobes.StaticProbe{Provider: "parser", Name: "line__end", Addr: 0x406000, Offset: 0x6000,
		SemaphoreAddr: 0x500000, SemaphoreOffset: 0x100000, RawArgs: "8@%rdi -4@%eax",
		Args: []uprobes.USDTArg{{Raw: "8@%rdi"}, {Raw: "-4@%eax"}}}
	other := usdt
	other.Addr, other.Offset = 0x406100, 0x6100
	other.RawArgs, other.Args = "8@%xmm0", []uprobes.USDTArg{{Raw: "8@%xmm0", Err: errors.New("argument \"8@%xmm0\": in no register")}}
	plain := uprobes.StaticProbe{Provider: "parser", Name: "start", Addr: 0x406200, Offset: 0x6200}
	return &tracer.Listing{
		Functions: []tracer.Listed{
			{Candidate: tracer.Candidate{Function: goFn, Plan: &uprobes.Plan{
				Entry:   entry(0x1004, uprobes.Emulated, "push %rbp at +4, emulated"),
				Returns: []uprobes.Site{ret(uprobes.RoleRet, uprobes.SingleStepped), ret(uprobes.RoleRet, uprobes.SingleStepped)},
			}}, Module: server, File: "/srv/src/server/main.go", Line: 42, CostNS: 10_700},
			{Candidate: tracer.Candidate{Function: cFn, Plan: &uprobes.Plan{
				Entry: entry(0x2000, uprobes.Emulated, "push %rbp at +0, emulated"), Returns: []uprobes.Site{ret(uprobes.RoleReturn, uprobes.Emulated)},
			}}, Module: lib, CostNS: 740},
			{Candidate: tracer.Candidate{Function: cpp, Plan: &uprobes.Plan{
				Entry: entry(0x3008, uprobes.SingleStepped, "mov at +8, single-stepped"),
				Returns: []uprobes.Site{
					ret(uprobes.RoleRet, uprobes.SingleStepped), ret(uprobes.RoleTail, uprobes.Emulated),
				},
				Warnings: []string{"parts of the function lie elsewhere: returns from there are seen late"},
			}}, Module: lib, File: "/build/libparser-3.1.4/src/json/detail/parser_implementation.hpp", Line: 1077, CostNS: 20_400, Unwinds: true},
			{Candidate: tracer.Candidate{Function: ifunc, Err: fmt.Errorf("copy: %w: it only chooses", uprobes.ErrNotProbeable)}, Module: lib},
			{Candidate: tracer.Candidate{Function: hostile, Plan: &uprobes.Plan{
				Entry: entry(0x5000, uprobes.Emulated, "nop at +0, emulated"), NoReturn: true,
			}}, Module: lib, CostNS: 500},
		},
		Static: []tracer.ListedStatic{
			{Module: lib, Sites: []uprobes.StaticProbe{usdt, other}, CostNS: 500},
			{Module: lib, Sites: []uprobes.StaticProbe{plain}, CostNS: 500},
		},
		Inlined: []tracer.ListedInline{
			{Name: "main.clamp", Module: server, Sites: []symbolizer.InlineSite{
				{Function: "main.clamp", Caller: "main.(*server).handle", File: "/srv/src/server/main.go", Line: 57, Addr: 0x401010}}},
		},
		LeftOut: 2222,
	}
}

func checkGolden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (go test ./cmd/sbxtrace -update writes it anew); got:\n%s", path, got)
	}
}

func TestListTable(t *testing.T) {
	for name, width := range map[string]int{"table.txt": 0, "table-80.txt": 80, "table-120.txt": 120} {
		var b bytes.Buffer
		w := bufio.NewWriter(&b)
		listTable(w, someListing(), palette{}, width)
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		checkGolden(t, name, b.Bytes())
		for line := range strings.Lines(b.String()) {
			line = strings.TrimSuffix(line, "\n")
			if n := utf8.RuneCountInString(line); width > 0 && n > width {
				t.Errorf("%s: %d columns, more than %d: %q", name, n, width, line)
			}
			if strings.TrimRight(line, " ") != line {
				t.Errorf("%s: blanks at the end of %q", name, line)
			}
		}
	}
}

// However narrow the terminal is, every column is there and nothing breaks.
func TestListTableNarrow(t *testing.T) {
	for width := range 60 {
		var b bytes.Buffer
		w := bufio.NewWriter(&b)
		listTable(w, someListing(), palette{}, width+1)
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(b.String(), "\n"); n != 7 {
			t.Errorf("width %d: %d lines, want 7", width, n)
		}
	}
}

func TestListVerbose(t *testing.T) {
	var b bytes.Buffer
	w := bufio.NewWriter(&b)
	listVerbose(w, someListing(), palette{})
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	checkGolden(t, "verbose.txt", b.Bytes())
	if strings.ContainsRune(b.String(), '\x1b') {
		t.Error("an escape sequence of a name reached the terminal")
	}
}

func TestListJSON(t *testing.T) {
	var b bytes.Buffer
	if err := listJSON(&b, someListing()); err != nil {
		t.Fatal(err)
	}
	checkGolden(t, "list.json", b.Bytes())
	for line := range strings.Lines(b.String()) {
		if !strings.HasPrefix(line, `{"type":"`) || !json.Valid([]byte(line)) {
			t.Errorf("not an object whose type comes first: %s", line)
		}
	}
}

func TestListingNote(t *testing.T) {
	for _, tt := range []struct {
		change  func(l *tracer.Listing)
		verbose bool
		want    string
	}{
		{func(*tracer.Listing) {}, false, "4 functions and 2 static probes can be traced, 1 cannot (--verbose says why), 1 exists only inlined; " +
			"left out: 2222 functions of the toolchain and other packages ('*' lists all)"},
		{func(l *tracer.Listing) { l.LeftOut, l.Inlined, l.Static = 0, nil, nil }, true, "4 functions can be traced, 1 cannot"},
		{func(l *tracer.Listing) { l.Functions[3].Function.Fragment = true; l.Inlined, l.LeftOut = nil, 0 }, true,
			"4 functions and 2 static probes can be traced, 1 is a part of another"},
		{func(l *tracer.Listing) { *l = tracer.Listing{Static: l.Static} }, false, "2 static probes can be traced"},
		{func(l *tracer.Listing) { *l = tracer.Listing{Functions: l.Functions[:1], LeftOut: 1, Libraries: 1} }, false,
			"1 function can be traced; left out: 1 function of the toolchain and a library ('*' lists all)"},
		{func(l *tracer.Listing) { *l = tracer.Listing{Functions: l.Functions[:1], LeftOut: 9, Libraries: 3} }, false,
			"1 function can be traced; left out: 9 functions of the toolchain and 3 libraries ('*' lists all)"},
	} {
		l := someListing()
		tt.change(l)
		if got := listingNote(l, tt.verbose); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"main":       "main",
		"näh::f":     "näh::f",
		"a\x00b":     "a\ufffdb",
		"\x1b[2Jf":   "\ufffd[2Jf",
		"\xff\xfe":   "\ufffd\ufffd",
		"\u202emain": "\ufffdmain",
	} {
		if got := printable(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
