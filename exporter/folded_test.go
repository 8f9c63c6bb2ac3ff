package exporter

import (
	"bytes"
	"compress/gzip"
	"errors"
	"strings"
	"testing"

	"github.com/google/pprof/profile"
)

func TestFolded(t *testing.T) {
	golden(t, "server.folded", write(t, cacheServer(), FormatFolded, Options{}))
	golden(t, "polyglot.folded", write(t, polyglot(), FormatFolded, Options{}))
	golden(t, "comparison.folded", write(t, diffOf(t, slowerServer(), cacheServer()), FormatFolded, Options{}))
	golden(t, "threads.folded", write(t, cacheServer(), FormatFolded, Options{ByThread: true, SampleType: "cpu"}))
}

func TestFoldedRoundTrip(t *testing.T) {
	for _, p := range []*profile.Profile{cacheServer(), polyglot()} {
		text := write(t, p, FormatFolded, Options{})
		again, err := Read(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if got := write(t, again, FormatFolded, Options{}); !bytes.Equal(got, text) {
			t.Errorf("read and written again:\n%s\nbefore:\n%s", got, text)
		}
		if got, want := totals(again)[0], totals(p)[0]; got != want {
			t.Errorf("%d samples became %d", want, got)
		}
	}
}

func TestReadFolded(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"a;b 3\na;b 4\n", "a;b 7"},
		{"# made by hand\n\n  a;b c;d 3 \r\n", "a;b c;d 3"},
		{"a 2.6\n", "a 3"},
		{"sys_[k];a_[k] 1", "sys_[k];a_[k] 1"},
		{"a;;b 1\n", "a;;b 1"},
		{"µ;日本 5\n", "µ;日本 5"},
	} {
		p, err := Read(strings.NewReader(tc.text))
		if err != nil {
			t.Errorf("%q: %v", tc.text, err)
			continue
		}
		if tc.want == "a;;b 1" {
			// A frame without a name is shown by where it is: nowhere.
			tc.want = "a;0x0;b 1"
		}
		if got := strings.TrimSpace(string(write(t, p, FormatFolded, Options{}))); got != tc.want {
			t.Errorf("%q reads as %q, want %q", tc.text, got, tc.want)
		}
	}
	for _, text := range []string{"a;b\n", "a;b x\n", "a 1e400\n", "a NaN\n", "# nothing\n", " 3\n", "hello world\n"} {
		if p, err := Read(strings.NewReader(text)); !errors.Is(err, ErrFolded) || p != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestReadCompressedFolded(t *testing.T) {
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	w.Write([]byte("main;work 12\n"))
	w.Close()
	p, err := Read(&z)
	if err != nil || totals(p)[0] != 12 {
		t.Errorf("%v, %v", p, err)
	}
}
