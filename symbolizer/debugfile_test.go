package symbolizer

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestDebugFileByBuildID: the symbols of a stripped file come from
// DIR/.build-id/xx/yyyy.debug.
func TestDebugFileByBuildID(t *testing.T) {
	whole := compile(t, "funcs.c", "-g", "-pie", "-fPIE")
	debug := derive(t, whole, "debug", "objcopy", "--only-keep-debug", "IN", "OUT")
	stripped := derive(t, whole, "stripped", "strip", "-o", "OUT", "IN")
	id := open(t, whole, Options{NoDebugFiles: true}).BuildID

	dir := t.TempDir()
	copyFile(t, debug, filepath.Join(dir, "debug", ".build-id", id[:2], id[2:]+".debug"))
	b := open(t, stripped, Options{DebugDirs: []string{filepath.Join(dir, "debug")}})
	compareWithNM(t, b, []string{"nm"}, whole)
	f := byName(t, b, "hidden_static")
	if f.Source != SourceDebugFile {
		t.Errorf("hidden_static comes from %s", f.Source)
	}
	if file, line := b.Line(f.Addr); filepath.Base(file) != "funcs.c" || line == 0 {
		t.Errorf("hidden_static is at %s:%d", file, line)
	}

	// The same below another root, as for a process in a container.
	root := open(t, stripped, Options{Root: dir, DebugDirs: []string{"/debug"}})
	if f := byName(t, root, "hidden_static"); f.Source != SourceDebugFile {
		t.Errorf("below a root hidden_static comes from %s", f.Source)
	}

	// A file with another build id is not taken, whatever its name.
	other := derive(t, compile(t, "funcs.c", "-g", "-no-pie", "-fno-pie"), "debug", "objcopy", "--only-keep-debug", "IN", "OUT")
	wrong := t.TempDir()
	copyFile(t, other, filepath.Join(wrong, ".build-id", id[:2], id[2:]+".debug"))
	b = open(t, stripped, Options{DebugDirs: []string{wrong}})
	for _, f := range functions(t, b) {
		if f.Source == SourceDebugFile {
			t.Fatalf("%s comes from the debug file of another program", f.Name)
		}
	}
}

// TestDebugLink: without a build id the name and checksum in .gnu_debuglink lead
// to the debug file, in each of the places where it may be.
func TestDebugLink(t *testing.T) {
	whole := compile(t, "funcs.c", "-g", "-pie", "-fPIE", "-Wl,--build-id=none")
	debug := derive(t, whole, "debug", "objcopy", "--only-keep-debug", "IN", "OUT")
	stripped := derive(t, whole, "stripped", "strip", "-o", "OUT", "IN")
	need(t, "objcopy")

	for name, place := range map[string]string{
		"beside":     "bin/prog.debug",
		"dot-debug":  "bin/.debug/prog.debug",
		"global":     "global/bin/prog.debug",
		"wrong file": "",
	} {
		t.Run(name, func(t *testing.T) {
			// The link names its target by base name and stores its checksum.
			root := t.TempDir()
			debugCopy := filepath.Join(t.TempDir(), "prog.debug")
			copyFile(t, debug, debugCopy)
			prog := filepath.Join(root, "bin/prog")
			copyFile(t, stripped, prog)
			mustRun(t, "objcopy", "--add-gnu-debuglink="+debugCopy, prog)
			if place != "" {
				copyFile(t, debug, filepath.Join(root, place))
			} else {
				copyFile(t, whole, filepath.Join(root, "bin/prog.debug"))
			}
			b := open(t, prog, Options{Root: root, DebugDirs: []string{"/global"}})
			var sources []FuncSource
			for _, f := range functions(t, b) {
				if f.Symbol == "hidden_static" {
					sources = append(sources, f.Source)
				}
			}
			if place == "" {
				if len(sources) != 0 {
					t.Errorf("a file with another checksum was taken: %s", sources)
				}
				return
			}
			if len(sources) != 1 || sources[0] != SourceDebugFile {
				t.Errorf("hidden_static comes from %s", sources)
			}
			compareWithNM(t, b, []string{"nm"}, whole)
		})
	}
}

// TestDebugLinkStaysBelowRoot: a link with directories in its name could lead out
// of the target's root.
func TestDebugLinkStaysBelowRoot(t *testing.T) {
	whole := compile(t, "funcs.c", "-g", "-pie", "-fPIE", "-Wl,--build-id=none")
	need(t, "objcopy")
	link := filepath.Join(t.TempDir(), "link")
	if err := os.WriteFile(link, []byte("../../prog\x00\x00\x00\x00\x00\x00"), 0o644); err != nil {
		t.Fatal(err)
	}
	prog := filepath.Join(t.TempDir(), "prog")
	mustRun(t, "objcopy", "--add-section", ".gnu_debuglink="+link, whole, prog)
	if name, _, ok := open(t, prog, Options{}).debugLink(); ok {
		t.Errorf("debug link %q was accepted", name)
	}
}

// TestMiniDebug: the symbols that distributions pack into .gnu_debugdata.
func TestMiniDebug(t *testing.T) {
	need(t, "objcopy", "strip", "xz")
	whole := compile(t, "funcs.c", "-g", "-pie", "-fPIE")
	dir := t.TempDir()
	mini := filepath.Join(dir, "mini")
	mustRun(t, "objcopy", "--strip-debug", "--only-keep-debug", whole, mini)
	// Two blocks: the reader has to walk all of them.
	mustRun(t, "xz", "--block-size=2048", mini)
	prog := filepath.Join(dir, "prog")
	mustRun(t, "strip", "-o", prog, whole)
	mustRun(t, "objcopy", "--add-section", ".gnu_debugdata="+mini+".xz", prog)

	b := open(t, prog, Options{NoDebugFiles: true})
	compareWithNM(t, b, []string{"nm"}, whole)
	if f := byName(t, b, "hidden_static"); f.Source != SourceMiniDebug {
		t.Errorf("hidden_static comes from %s", f.Source)
	}

	packed, err := os.ReadFile(mini + ".xz")
	if err != nil {
		t.Fatal(err)
	}
	mustRun(t, "xz", "-dk", mini+".xz")
	plain, err := os.ReadFile(mini)
	if err != nil {
		t.Fatal(err)
	}
	size, dict, err := xzExtent(packed)
	if err != nil || size != uint64(len(plain)) || dict == 0 || dict > 64<<20 {
		t.Errorf("xzExtent = %d bytes, dictionary %d, %v; the file has %d bytes", size, dict, err, len(plain))
	}
	for cut := range packed {
		if _, _, err := xzExtent(packed[:cut]); err == nil && packed[cut] != 0 && cut < len(packed)-64 {
			t.Fatalf("xzExtent accepts the first %d of %d bytes", cut, len(packed))
		} else if err != nil && !errors.Is(err, ErrMalformed) {
			t.Fatalf("xzExtent: %v", err)
		}
	}
}

// TestMiniDebugLimits: a dictionary of 4 GiB is not allocated.
func TestMiniDebugLimits(t *testing.T) {
	stream := []byte("\xfd7zXZ\x00\x00\x01\x69\x22\xde\x36" + "\x02\x00\x21\x01\x28\x00\x00\x00" + "\x00\x00\x00\x00")
	_, dict, err := xzExtent(stream[:12+12])
	if err == nil && dict <= maxMiniDebugDict {
		t.Errorf("dictionary of %d bytes, %v", dict, err)
	}
	if dict != 1<<32-1 && err == nil {
		t.Errorf("dictionary code 40 is %d bytes", dict)
	}
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o755); err != nil {
		t.Fatal(err)
	}
}
