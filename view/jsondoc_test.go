package view

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sbxtrace/sbxtrace/trace"
)

// documented is one type of line as docs/json.md describes it.
type documented struct {
	always, sometimes []string
	examples          []map[string]any
}

func (d *documented) has(field string) bool {
	return slices.Contains(d.always, field) || slices.Contains(d.sometimes, field)
}

var quoted = regexp.MustCompile("`([a-z0-9_]+)`")

// readJSONDoc reads docs/json.md: a section per type, with examples and a
// table whose first column names the fields.
func readJSONDoc(t *testing.T) map[string]*documented {
	t.Helper()
	text, err := os.ReadFile("../docs/json.md")
	if err != nil {
		t.Fatal(err)
	}
	types := map[string]*documented{}
	var d *documented
	fields := false
	for n, line := range strings.Split(string(text), "\n") {
		switch {
		case strings.HasPrefix(line, "## "):
			d = nil
			if name := line[3:]; !strings.Contains(name, " ") {
				d = new(documented)
				types[name] = d
			}
		case d == nil:
		case strings.HasPrefix(line, "{"):
			var o map[string]any
			if err := json.Unmarshal([]byte(line), &o); err != nil {
				t.Errorf("docs/json.md:%d: %v", n+1, err)
			}
			d.examples = append(d.examples, o)
		case strings.HasPrefix(line, "| field |"):
			fields = true
		case !strings.HasPrefix(line, "|"):
			fields = false
		case fields:
			cells := strings.Split(line, "|")
			for _, m := range quoted.FindAllStringSubmatch(cells[1], -1) {
				if strings.TrimSpace(cells[3]) == "always" {
					d.always = append(d.always, m[1])
				} else {
					d.sometimes = append(d.sometimes, m[1])
				}
			}
		}
	}
	return types
}

// conforms checks a line against the documentation of its type.
func conforms(types map[string]*documented, o map[string]any) error {
	name := fmt.Sprint(o["type"])
	d := types[name]
	if d == nil {
		return fmt.Errorf("type %q is not documented", name)
	}
	for field := range o {
		if !d.has(field) {
			return fmt.Errorf("field %q of %q is not documented", field, name)
		}
	}
	for _, field := range d.always {
		if _, ok := o[field]; !ok {
			return fmt.Errorf("field %q of %q is missing", field, name)
		}
	}
	return nil
}

func TestJSONIsDocumented(t *testing.T) {
	types := readJSONDoc(t)
	for name, d := range types {
		if len(d.examples) == 0 {
			t.Errorf("%s has no example", name)
		}
		shown := map[string]bool{}
		for _, o := range d.examples {
			if err := conforms(types, o); err != nil {
				t.Errorf("example of %s: %v", name, err)
			}
			for f := range o {
				shown[f] = true
			}
		}
		for _, f := range append(d.sometimes, d.always...) {
			if !shown[f] {
				t.Errorf("no example of %s shows %q", name, f)
			}
		}
	}

	// Everything that is printed is documented, and the other way round.
	var out bytes.Buffer
	for _, sc := range scenes {
		out.Write(renderJSON(t, sc.act, JSONOptions{Entries: true, Frame: frame}))
	}
	printed := map[string]map[string]bool{}
	for line := range bytes.Lines(out.Bytes()) {
		var o map[string]any
		if err := json.Unmarshal(line, &o); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if err := conforms(types, o); err != nil {
			t.Errorf("%v: %s", err, line)
		}
		if !bytes.HasPrefix(line, []byte(`{"type":"`)) {
			t.Errorf("type does not come first: %s", line)
		}
		name := o["type"].(string)
		if printed[name] == nil {
			printed[name] = map[string]bool{}
		}
		for f := range o {
			printed[name][f] = true
		}
	}
	for name, d := range types {
		for _, f := range append(d.sometimes, d.always...) {
			if !printed[name][f] {
				t.Errorf("field %q of %q is documented but was never printed", f, name)
			}
		}
	}

	text, err := os.ReadFile("../docs/json.md")
	if err != nil {
		t.Fatal(err)
	}
	for k := range trace.NumEndKinds {
		if end := trace.EndKind(k); end != trace.EndReturn && !bytes.Contains(text, []byte("| `"+end.String()+"` |")) {
			t.Errorf("docs/json.md does not explain the end %q", end)
		}
	}
	for k := 1; k < trace.NumLostCauses; k++ {
		if cause := trace.LostCause(k).String(); !bytes.Contains(text, []byte("`"+cause+"`:")) {
			t.Errorf("docs/json.md does not explain the cause %q", cause)
		}
	}
}

func TestAppendString(t *testing.T) {
	for _, s := range []string{"", "plain", `a"b\c`, "tab\tnl\nnul\x00del\x7f", "µ › 日本", "bad\xff\xfe", "\u2028\u2029\u202e"} {
		var got string
		text := appendString(nil, s)
		if err := json.Unmarshal(text, &got); err != nil {
			t.Errorf("%q: %v: %s", s, err, text)
		}
		if want := strings.ToValidUTF8(strings.ReplaceAll(s, "\xff\xfe", "\ufffd\ufffd"), "\ufffd"); got != want {
			t.Errorf("%q became %q", s, got)
		}
	}
}
