package main

import (
	"strings"
	"testing"
)

const goodManifest = `{
"kernels": [{"name":"6.1","package":"linux-.*","suites":["s"],"memory_mb":512},{"name":"6.12","package":"x","suites":["s"],"memory_mb":512}],
"files": [{"path":"/bin/x","go":"./cmd/x"}],
"tests": [
 {"name":"a","package":"./a","seconds":5,"min_pass":{"6.1":1,"6.12":2}},
 {"name":"b","package":"./b","seconds":5,"min_pass":{"6.12":2}}]}`

func TestParseManifest(t *testing.T) {
	for _, tc := range []struct{ name, old, new, want string }{
		{"good", "", "", ""},
		{"unknown key", `"seconds":5`, `"second":5`, "unknown field"},
		{"unknown kernel", `"min_pass":{"6.12":2}`, `"min_pass":{"6.13":2}`, `kernel "6.13"`},
		{"no minimum", `"min_pass":{"6.12":2}`, `"min_pass":{}`, "needs package, seconds and min_pass"},
		{"minimum of none", `"min_pass":{"6.12":2}`, `"min_pass":{"6.12":0}`, "must be positive"},
		{"kernel twice", `"name":"6.12"`, `"name":"6.1"`, "there twice"},
		{"test twice", `"name":"b"`, `"name":"a"`, "there twice"},
		{"name with a slash", `"name":"b"`, `"name":"../b"`, "unusable"},
		{"bad pattern", `"linux-.*"`, `"linux-("`, "missing closing"},
		{"two sources", `"go":"./cmd/x"`, `"go":"./cmd/x","copy":"y"`, "one of go, copy and run"},
		{"leave without copy", `"go":"./cmd/x"`, `"go":"./cmd/x","leave":"y"`, "takes copy"},
		{"bad leave", `"go":"./cmd/x"`, `"copy":"x","leave":"("`, "missing closing"},
		{"relative path", `"/bin/x"`, `"bin/x"`, "absolute path"},
		{"text behind", `"min_pass":{"6.12":2}}]}`, `"min_pass":{"6.12":2}}]}{}`, "text after the end"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text := strings.Replace(goodManifest, tc.old, tc.new, 1)
			if tc.old != "" && text == goodManifest {
				t.Fatalf("nothing to replace for %q", tc.old)
			}
			m, err := parseManifest([]byte(text))
			if tc.want == "" {
				if err != nil || len(m.Kernels) != 2 || len(m.Tests) != 2 {
					t.Fatalf("parseManifest = %+v, %v", m, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("parseManifest: %v, want %q", err, tc.want)
			}
		})
	}
}

func TestRepositoryManifest(t *testing.T) {
	m, err := readManifest("manifest.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range m.Kernels {
		if len(m.testsFor(k.Name)) == 0 {
			t.Errorf("nothing runs on kernel %s", k.Name)
		}
	}
}

func TestNarrow(t *testing.T) {
	for _, tc := range []struct {
		kernels, tests string
		want           string // kernels and tests that are left
		err            string
	}{
		{"", "", "6.1 6.12 / a b", ""},
		{"6.1", "", "6.1 / a", ""},
		{"6.12", "b", "6.12 / b", ""},
		{"6.1", "b", "", "nothing to run"},
		{"5.4", "", "", `no kernel "5.4"`},
		{"", "(", "", "pattern of tests"},
	} {
		m, err := parseManifest([]byte(goodManifest))
		if err != nil {
			t.Fatal(err)
		}
		if err := m.narrow(tc.kernels, tc.tests); tc.err != "" || err != nil {
			if err == nil || !strings.Contains(err.Error(), tc.err) || tc.err == "" {
				t.Errorf("narrow(%q, %q): %v, want %q", tc.kernels, tc.tests, err, tc.err)
			}
			continue
		}
		var left []string
		for _, k := range m.Kernels {
			left = append(left, k.Name)
		}
		left = append(left, "/")
		for _, x := range m.Tests {
			left = append(left, x.Name)
		}
		if got := strings.Join(left, " "); got != tc.want {
			t.Errorf("narrow(%q, %q) leaves %q, want %q", tc.kernels, tc.tests, got, tc.want)
		}
	}
}
