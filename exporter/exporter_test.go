package exporter

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/pprof/profile"

	"github.com/sbxtrace/sbxtrace/internal/jsondoc"
	"github.com/sbxtrace/sbxtrace/internal/term"
)

func TestFormatOf(t *testing.T) {
	for path, want := range map[string]Format{
		"a.pb.gz": FormatPprof, "dir.svg/a.pprof": FormatPprof, "a.folded": FormatFolded, "a.collapsed": FormatFolded,
		"A.HTML": FormatHTML, "a.svg": FormatSVG, "a.json": FormatJSON, "a.jsonl": FormatJSON, "a.txt": FormatText,
		"a.gz": "", "a": "", "": "", "html": "", "a.html.bak": "",
	} {
		if got, ok := FormatOf(path); got != want || ok != (want != "") {
			t.Errorf("%q is %q, %v; want %q", path, got, ok, want)
		}
	}
	for _, f := range Formats {
		if got, err := ParseFormat(string(f)); got != f || err != nil {
			t.Errorf("format %q parses as %q, %v", f, got, err)
		}
	}
	if _, err := ParseFormat("gif"); !errors.Is(err, ErrFormat) {
		t.Errorf("gif is a format: %v", err)
	}
}

func TestPprofRoundTrip(t *testing.T) {
	for name, p := range map[string]*profile.Profile{
		"server": cacheServer(), "polyglot": polyglot(), "comparison": diffOf(t, slowerServer(), cacheServer()),
	} {
		got, err := Read(bytes.NewReader(write(t, p, FormatPprof, Options{})))
		if err != nil {
			t.Fatal(err)
		}
		if got.String() != p.String() {
			t.Errorf("%s: read back as\n%s\nwritten\n%s", name, got, p)
		}
	}
}

func TestInvalidProfileIsNotWritten(t *testing.T) {
	for name, p := range map[string]*profile.Profile{
		"no types": {}, "no values": {SampleType: []*profile.ValueType{{Type: "samples", Unit: "count"}}, Sample: []*profile.Sample{{}}},
	} {
		for _, format := range Formats {
			var out bytes.Buffer
			if err := WriteProfile(&out, p, format, Options{}); err == nil || out.Len() > 0 {
				t.Errorf("%s as %s: error %v, %d bytes", name, format, err, out.Len())
			}
		}
	}
}

func TestSampleType(t *testing.T) {
	p := cacheServer()
	for _, tc := range []struct{ name, fallback, want string }{
		{"", "", "cpu"}, {"", "samples", "samples"}, {"samples", "", "samples"}, {"cpu", "samples", "cpu"},
	} {
		p.DefaultSampleType = tc.fallback
		i, err := sampleType(p, tc.name)
		if err != nil || p.SampleType[i].Type != tc.want {
			t.Errorf("asked for %q with default %q: %d, %v", tc.name, tc.fallback, i, err)
		}
	}
	for _, format := range []Format{FormatFolded, FormatHTML, FormatSVG, FormatText} {
		err := WriteProfile(io.Discard, p, format, Options{SampleType: "alloc_space"})
		if !errors.Is(err, ErrSampleType) || !strings.Contains(err.Error(), "samples, cpu") {
			t.Errorf("%s of a type that is not there: %v", format, err)
		}
	}
}

// failing is a writer that fails after some bytes.
type failing struct{ left int }

var errFull = errors.New("disk full")

func (w *failing) Write(b []byte) (int, error) {
	if w.left -= len(b); w.left < 0 {
		return 0, errFull
	}
	return len(b), nil
}

func TestWriteErrorsAreTold(t *testing.T) {
	for _, format := range Formats {
		if err := WriteProfile(&failing{left: 10}, cacheServer(), format, Options{}); !errors.Is(err, errFull) {
			t.Errorf("%s: %v", format, err)
		}
	}
}

func TestEmptyProfile(t *testing.T) {
	p := newBuilder().p
	for _, format := range Formats {
		if len(write(t, p, format, Options{Width: 80})) == 0 && format != FormatFolded {
			t.Errorf("%s of a profile without samples is empty", format)
		}
	}
}

func TestText(t *testing.T) {
	for name, p := range map[string]*profile.Profile{
		"server": cacheServer(), "polyglot": polyglot(), "comparison": diffOf(t, slowerServer(), cacheServer()),
	} {
		for _, tc := range []struct {
			name  string
			width int
		}{{"", 100}, {"-narrow", 60}} {
			plain := write(t, p, FormatText, Options{Width: tc.width})
			golden(t, "text-"+name+tc.name+".txt", plain)
			for line := range strings.Lines(string(plain)) {
				line = strings.TrimSuffix(line, "\n")
				if n := len([]rune(line)); n > tc.width {
					t.Errorf("%s: %d columns in a terminal of %d: %s", name, n, tc.width, line)
				}
				if line != term.Clean(line) {
					t.Errorf("%s: the terminal is commanded: %q", name, line)
				}
			}
			// Colour adds to the text and changes nothing but the patterns
			// that stand for it in the overview.
			color := string(write(t, p, FormatText, Options{Width: tc.width, Color: true}))
			same := strings.NewReplacer("▓", "█", "▒", "█", "░", "█")
			if got := same.Replace(term.Uncolor(color)); got != same.Replace(string(plain)) {
				t.Errorf("%s: colour changes the text:\n%s", name, got)
			}
		}
	}
}

func TestJSONIsDocumented(t *testing.T) {
	types, err := jsondoc.Read("../docs/json.md")
	if err != nil {
		t.Fatal(err)
	}
	var lines []byte
	lines = append(lines, write(t, cacheServer(), FormatJSON, Options{})...)
	lines = append(lines, write(t, diffOf(t, slowerServer(), cacheServer()), FormatJSON, Options{})...)
	lines = append(lines, write(t, polyglot(), FormatJSON, Options{})...)
	for _, err := range jsondoc.Check(types, []string{"profile", "mapping", "sample"}, lines) {
		t.Error(err)
	}
	golden(t, "server.json", write(t, cacheServer(), FormatJSON, Options{}))
}

func TestSVG(t *testing.T) {
	for name, p := range map[string]*profile.Profile{
		"server": cacheServer(), "polyglot": polyglot(), "comparison": diffOf(t, slowerServer(), cacheServer()),
	} {
		text := write(t, p, FormatSVG, Options{})
		var frames []string
		scripts := 0
		d := xml.NewDecoder(bytes.NewReader(text))
		for {
			tok, err := d.Token()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%s: not well-formed: %v", name, err)
			}
			if e, ok := tok.(xml.StartElement); ok {
				switch e.Name.Local {
				case "title":
					var title string
					if err := d.DecodeElement(&title, &e); err != nil {
						t.Fatal(err)
					}
					frames = append(frames, title)
				case "script":
					scripts++
				case "img", "b", "image", "use", "foreignObject":
					t.Errorf("%s: a name became an element: %s", name, e.Name.Local)
				}
			}
		}
		if scripts != 1 {
			t.Errorf("%s: %d scripts", name, scripts)
		}
		all := strings.Join(frames, "\n\n")
		want := map[string]string{
			"server":     "malloc\n1.50 s, 15.0 %\nlibc.so.6",
			"polyglot":   "</script><script>alert(1)</script>\n70.0 ms, 5.8 %\napp",
			"comparison": "lookup_key\n5.40 s, 38.7 %\nbase 1.80 s, 18.0 %; change +20.7 points\ncache-server\ndb.c:132",
		}[name]
		if !strings.Contains(all, want) {
			t.Errorf("%s: no frame says\n%s\nin\n%s", name, want, all)
		}
	}
}
