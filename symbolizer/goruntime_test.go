package symbolizer

import (
	"bytes"
	"debug/dwarf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// goToolchains are the releases that can be had without a download: the
// installed one, and what GOTOOLCHAIN has brought before.
func goToolchains(t testing.TB) []string {
	need(t, "go")
	releases := []string{"local"}
	cache := strings.TrimSpace(mustRun(t, "go", "env", "GOMODCACHE"))
	found, _ := filepath.Glob(filepath.Join(cache, "golang.org/toolchain@v0.0.1-*"))
	for _, dir := range found {
		_, version, _ := strings.Cut(dir, "@v0.0.1-")
		version, _, _ = strings.Cut(version, ".linux-")
		if minor := goMinor(version); minor >= 18 && minor != 19 {
			releases = append(releases, version)
		}
	}
	return releases
}

func goLabelsProgram(t testing.TB, release string) string {
	return fixture(t, "golabels "+release, func(dir string) (string, error) {
		out := filepath.Join(dir, "golabels")
		cmd := exec.Command("go", "build", "-o", out, ".")
		cmd.Dir = "testdata/src/golabels"
		cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=", "GOTOOLCHAIN="+release)
		if text, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("%s: %w\n%s", cmd, err, text)
		}
		return out, nil
	})
}

// TestGoRuntimeLayout compares the offsets with the debug information of programs.
func TestGoRuntimeLayout(t *testing.T) {
	for _, release := range goToolchains(t) {
		t.Run(release, func(t *testing.T) {
			b := open(t, goLabelsProgram(t, release), Options{})
			layout, ok := GoRuntimeOf(b.GoVersion)
			if !ok {
				t.Fatalf("%s is not known", b.GoVersion)
			}
			offsets := structOffsets(t, b)
			for name, got := range map[string]uint32{
				"runtime.g.goid": layout.GoID, "runtime.g.m": layout.M, "runtime.g.labels": layout.Labels, "runtime.m.curg": layout.CurG,
			} {
				if want, ok := offsets[name]; !ok || int64(got) != want {
					t.Errorf("%s: %s at %d, want %d (%v)", b.GoVersion, name, got, want, ok)
				}
			}
			if want := offsets["runtime.g.sched"] + offsets["runtime.gobuf.bp"]; int64(layout.SchedBP) != want {
				t.Errorf("%s: sched.bp at %d, want %d", b.GoVersion, layout.SchedBP, want)
			}
		})
	}
}

func structOffsets(t testing.TB, b *Binary) map[string]int64 {
	t.Helper()
	d, err := b.file.DWARF()
	if err != nil {
		t.Fatal(err)
	}
	offsets := make(map[string]int64)
	for r := d.Reader(); ; {
		e, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if e == nil {
			return offsets
		}
		if e.Tag != dwarf.TagStructType {
			continue
		}
		name, _ := e.Val(dwarf.AttrName).(string)
		if name != "runtime.g" && name != "runtime.m" && name != "runtime.gobuf" {
			continue
		}
		typ, err := d.Type(e.Offset)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range typ.(*dwarf.StructType).Field {
			offsets[name+"."+f.Name] = f.ByteOffset
		}
	}
}

// TestGoLabels reads labels out of running programs, through the runtime's list
// of all goroutines.
func TestGoLabels(t *testing.T) {
	var many []string
	for i := range 20 {
		many = append(many, fmt.Sprintf("key%02d=value %d", i, i))
	}
	for _, release := range goToolchains(t) {
		t.Run(release, func(t *testing.T) {
			p := startTarget(t, goLabelsProgram(t, release))
			b := open(t, ExePath(p.pid), Options{})
			layout, _ := GoRuntimeOf(b.GoVersion)
			syms, err := b.file.Symbols()
			if err != nil {
				t.Fatal(err)
			}
			f, err := OpenMemory(p.pid)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			m := memory{f}
			found := make(map[string]bool)
			ids := make(map[uint64]bool)
			for _, s := range syms {
				if s.Name != "runtime.allgs" {
					continue
				}
				slice, err := m.words(s.Value, 2)
				if err != nil {
					t.Fatal(err)
				}
				all, err := m.words(slice[0], int(slice[1]))
				if err != nil {
					t.Fatal(err)
				}
				for _, g := range all {
					id, _ := m.uint64(g + uint64(layout.GoID))
					if id != 0 && ids[id] || id > 1000 {
						t.Errorf("goroutine %d", id)
					}
					ids[id] = true
					pointer, _ := m.uint64(g + uint64(layout.Labels))
					labels, err := layout.ReadLabels(f, pointer)
					if err != nil {
						t.Errorf("goroutine %d: %v", id, err)
					}
					var text []string
					for _, l := range labels {
						text = append(text, l.Key+"="+l.Value)
					}
					found[strings.Join(text, ",")] = true
				}
			}
			for _, want := range []string{"", "empty=,route=/users/:id,tenant=acme", strings.Join(many, ",")} {
				if !found[want] {
					t.Errorf("no goroutine has the labels %q: %v", want, found)
				}
			}
		})
	}
}

func TestGoRuntimeReleases(t *testing.T) {
	for release, want := range map[string]bool{"go1.17.1": false, "go1.18": true, "go1.26.8": true, "go1.40": true, "devel +abc": true, "": false, "go2": false} {
		if _, ok := GoRuntimeOf(release); ok != want {
			t.Errorf("%q is known: %v", release, ok)
		}
	}
}

func FuzzGoLabels(f *testing.F) {
	f.Add([]byte("\x10\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01"), uint64(8), true)
	f.Add(make([]byte, 512), uint64(16), false)
	f.Fuzz(func(t *testing.T, data []byte, addr uint64, old bool) {
		layout := GoRuntime{LabelMap: old}
		labels, err := layout.ReadLabels(bytes.NewReader(data), addr)
		if err != nil && labels != nil || len(labels) > maxGoLabels {
			t.Fatalf("%d labels, %v", len(labels), err)
		}
	})
}
