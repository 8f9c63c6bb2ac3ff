package view

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/sbxtrace/sbxtrace/internal/jsondoc"
	"github.com/sbxtrace/sbxtrace/trace"
)

// lineTypes are the types of lines that this room prints.
var lineTypes = []string{"call", "entry", "usdt", "fork", "exec", "exit", "lost", "detached", "summary", "totals"}

func TestJSONIsDocumented(t *testing.T) {
	types, err := jsondoc.Read("../docs/json.md")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for _, sc := range scenes {
		out.Write(renderJSON(t, sc.act, JSONOptions{Entries: true, Frame: frame}))
	}
	for _, err := range jsondoc.Check(types, lineTypes, out.Bytes()) {
		t.Error(err)
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
