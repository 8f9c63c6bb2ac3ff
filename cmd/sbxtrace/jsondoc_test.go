package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/sbxtrace/sbxtrace/internal/jsondoc"
)

// What functions and doctor print is what docs/json.md says.
func TestJSONIsDocumented(t *testing.T) {
	types, err := jsondoc.Read("../../docs/json.md")
	if err != nil {
		t.Fatal(err)
	}
	for golden, names := range map[string][]string{
		"list.json":   {"function", "static", "inlined"},
		"doctor.json": {"machine", "feature", "calibration", "verdict"},
	} {
		text, err := os.ReadFile(filepath.Join("testdata", golden))
		if err != nil {
			t.Fatal(err)
		}
		if golden == "doctor.json" { // where nothing could be measured
			text = append(text, `{"type":"calibration","error":"permission denied"}`+"\n"...)
		}
		for _, err := range jsondoc.Check(types, names, text) {
			t.Error(err)
		}
	}
}
