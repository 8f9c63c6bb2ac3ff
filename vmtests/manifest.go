package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"regexp"
)

// manifest says which kernels are booted and what runs there.
type manifest struct {
	Kernels []kernel `json:"kernels"`
	Files   []file   `json:"files"`
	Env     []string `json:"env"` // environment of all tests, KEY=VALUE
	Tests   []test   `json:"tests"`
}

// kernel is a kernel package of Debian's.
type kernel struct {
	Name     string   `json:"name"`    // short name, such as 6.1
	Package  string   `json:"package"` // regular expression for the whole package name; the newest match is taken
	Suites   []string `json:"suites"`  // of the archive; the first one that has such a package is taken
	MemoryMB int      `json:"memory_mb"`

	pattern *regexp.Regexp
}

// file is something that the tests need in the machine. Exactly one of Go, Copy
// and Run is set. Shared libraries that an executable needs come along.
type file struct {
	Path  string   `json:"path"`  // in the machine
	Go    string   `json:"go"`    // main package, built statically
	Copy  string   `json:"copy"`  // path on the host, below the repository unless absolute; a file or a directory
	Leave string   `json:"leave"` // with Copy: regular expression for whole names in the directory that are left out
	Run   []string `json:"run"`   // command that leaves files in the directory that $OUT in its arguments stands for

	leave *regexp.Regexp // nil: nothing is
}

// test is one test binary with its selection of tests.
type test struct {
	Name    string         `json:"name"`
	Package string         `json:"package"`  // directory with a leading ./, built as a static test binary
	Run     []string       `json:"run"`      // -test.run, alternatives; none means all
	Skip    string         `json:"skip"`     // -test.skip
	Seconds int            `json:"seconds"`  // limit for the whole binary
	MinPass map[string]int `json:"min_pass"` // by kernel name: fewer passed tests are a failure; without an entry it is not run there
	Env     []string       `json:"env"`      // KEY=VALUE, for this test alone
}

var simpleName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]*$`)

func readManifest(path string) (*manifest, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	m, err := parseManifest(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

// parseManifest decodes a manifest and refuses what could only be a mistake: a
// misspelt key or kernel would silently mean that less is tested.
func parseManifest(text []byte) (*manifest, error) {
	m := new(manifest)
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(m); err != nil {
		return nil, err
	}
	if dec.More() {
		return nil, errors.New("text after the end")
	}
	known := make(map[string]bool)
	for i := range m.Kernels {
		k := &m.Kernels[i]
		if !simpleName.MatchString(k.Name) || known[k.Name] {
			return nil, fmt.Errorf("kernel name %q is unusable or there twice", k.Name)
		}
		known[k.Name] = true
		if len(k.Suites) == 0 || k.MemoryMB <= 0 {
			return nil, fmt.Errorf("kernel %s needs suites and memory_mb", k.Name)
		}
		var err error
		if k.pattern, err = regexp.Compile("^(?:" + k.Package + ")$"); err != nil || k.Package == "" {
			return nil, errors.Join(fmt.Errorf("kernel %s: package %q", k.Name, k.Package), err)
		}
	}
	for i := range m.Files {
		f := &m.Files[i]
		n := 0
		for _, set := range []bool{f.Go != "", f.Copy != "", len(f.Run) > 0} {
			if set {
				n++
			}
		}
		if n != 1 || !path.IsAbs(f.Path) {
			return nil, fmt.Errorf("file %q needs an absolute path and one of go, copy and run", f.Path)
		}
		if f.Leave == "" {
			continue
		}
		var err error
		if f.leave, err = regexp.Compile("^(?:" + f.Leave + ")$"); err != nil || f.Copy == "" {
			return nil, errors.Join(fmt.Errorf("file %s: leave %q, which takes copy", f.Path, f.Leave), err)
		}
	}
	names := make(map[string]bool)
	for _, t := range m.Tests {
		if !simpleName.MatchString(t.Name) || names[t.Name] {
			return nil, fmt.Errorf("test name %q is unusable or there twice", t.Name)
		}
		names[t.Name] = true
		if t.Package == "" || t.Seconds <= 0 || len(t.MinPass) == 0 {
			return nil, fmt.Errorf("test %s needs package, seconds and min_pass", t.Name)
		}
		for k, n := range t.MinPass {
			if !known[k] || n <= 0 {
				return nil, fmt.Errorf("test %s: min_pass of %d on kernel %q, which must be positive and listed", t.Name, n, k)
			}
		}
	}
	return m, nil
}

// testsFor are the tests that run on a kernel.
func (m *manifest) testsFor(kernelName string) []test {
	var list []test
	for _, t := range m.Tests {
		if t.MinPass[kernelName] > 0 {
			list = append(list, t)
		}
	}
	return list
}
