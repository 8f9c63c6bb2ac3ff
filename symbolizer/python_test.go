package symbolizer

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// pythons are the interpreters whose frames are known here: Debian's, and what
// pyenv has installed.
func pythons(t testing.TB) []string {
	found := []string{needFile(t, "/usr/bin/python3.11")}
	for _, minor := range []string{"11", "12", "13", "14"} {
		more, _ := filepath.Glob("/root/.pyenv/versions/3." + minor + ".*/bin/python3")
		found = append(found, more...)
	}
	return found
}

// pythonThread is what a thread of frames.py says of itself.
type pythonThread struct {
	id     int
	frames []Frame
}

// startFrames runs testdata/src/frames.py until its three threads wait.
func startFrames(t testing.TB, python string) (pid int, threads []pythonThread) {
	t.Helper()
	cmd := exec.Command(python, "testdata/src/frames.py")
	cmd.Env = append(os.Environ(), "PYTHONIOENCODING=utf-8")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		cmd.Process.Kill()
		cmd.Wait()
	})
	var thread pythonThread
	for lines := bufio.NewScanner(stdout); len(threads) < 3 && lines.Scan(); {
		text := lines.Text()
		if id, ok := strings.CutPrefix(text, "thread "); ok {
			n, _ := strconv.Atoi(id)
			thread = pythonThread{id: n}
			continue
		}
		if text == "end" {
			threads = append(threads, thread)
			continue
		}
		fields := strings.Split(text, "\t")
		line, _ := strconv.Atoi(fields[1])
		thread.frames = append(thread.frames, Frame{Function: fields[0], Line: line, File: fields[2]})
	}
	if len(threads) != 3 {
		t.Fatalf("%d threads have reported", len(threads))
	}
	return cmd.Process.Pid, threads
}

// TestPythonStacks compares the frames of waiting threads with what Python itself
// says of them.
func TestPythonStacks(t *testing.T) {
	for _, python := range pythons(t) {
		t.Run(python, func(t *testing.T) {
			t.Parallel()
			pid, threads := startFrames(t, python)
			p, err := FindPython(pid)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			if p.CodeType == 0 {
				t.Error("PyCode_Type was not found")
			}
			for _, thread := range threads {
				comparePythonThread(t, p, thread)
			}
			if _, err := p.Stack(1); !errors.Is(err, ErrNoPython) {
				t.Errorf("a thread of another process: %v", err)
			}
			// Not a code object.
			if f, err := p.Resolve(PythonFrame{Code: p.Runtime}); err == nil {
				t.Errorf("_PyRuntime is the function %+v", f)
			}
			if f, err := p.Resolve(PythonFrame{Code: 8}); err == nil {
				t.Errorf("unmapped memory is the function %+v", f)
			}
		})
	}
}

func comparePythonThread(t testing.TB, p *Python, thread pythonThread) {
	t.Helper()
	want := slices.Clone(thread.frames)
	if want[0].Function != "from_exec" {
		want[0].Line++ // from the report to the line where it waits
	}
	var got []Frame
	var entries int
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("thread %d has the frames\n%+v, want\n%+v", thread.id, got, want)
		}
	})
	// The thread may still be on its way from the report to where it waits.
	waitUntil(t, "the frames that Python itself tells", func() bool {
		frames, err := p.Stack(thread.id)
		got, entries = got[:0], 0
		for _, f := range frames {
			if f.Entry {
				entries++
			}
			if f.Code == 0 || err != nil {
				continue
			}
			var frame Frame
			frame, err = p.Resolve(f)
			if len(got) == 0 && filepath.Base(frame.File) == "threading.py" {
				continue // waiting
			}
			got = append(got, frame)
		}
		return err == nil && slices.Equal(got, want)
	})
	if entries == 0 {
		t.Errorf("thread %d: no entry among its frames", thread.id)
	}
}

// TestPythonReused: a code object in memory that is used again is not taken for
// the one that was there before.
func TestPythonReused(t *testing.T) {
	mem := newFakePython("first", "/a.py", 10)
	p := NewPython(bytes.NewReader(mem), pythonLayouts[11], 0x10, 0x42)
	p.recheck = 0
	f := PythonFrame{Code: fakeCode, Instr: fakeCode + 184 + 2}
	if got, err := p.Resolve(f); err != nil || got != (Frame{Function: "first", File: "/a.py", Line: 12}) {
		t.Fatalf("%+v, %v", got, err)
	}
	copy(mem, newFakePython("second", "/b.py", 20))
	binary.NativeEndian.PutUint64(mem[fakeCode+128:], fakeName) // the key differs by the line alone
	if got, err := p.Resolve(f); err != nil || got != (Frame{Function: "second", File: "/b.py", Line: 22}) {
		t.Fatalf("%+v, %v", got, err)
	}
	binary.NativeEndian.PutUint64(mem[fakeCode+8:], 0x43) // of another type
	if got, err := p.Resolve(f); !errors.Is(err, ErrMalformed) {
		t.Errorf("%+v, %v", got, err)
	}
}

const fakeCode, fakeName, fakeFile, fakeTable = 0x400, 0x800, 0x900, 0xa00

// newFakePython is memory with one code object of 3.11, of type 0x42, whose
// first instruction is one line and whose second two lines below its definition.
func newFakePython(name, file string, line uint32) []byte {
	mem := make([]byte, 0x1000)
	word := func(at int, v uint64) { binary.NativeEndian.PutUint64(mem[at:], v) }
	str := func(at int, s string) {
		word(at+16, uint64(len(s)))
		word(at+32, 1<<2|1<<5|1<<6)
		copy(mem[at+48:], s)
	}
	word(fakeCode+8, 0x42)
	binary.NativeEndian.PutUint32(mem[fakeCode+72:], line)
	word(fakeCode+112, fakeFile)
	word(fakeCode+128, fakeName)
	word(fakeCode+136, fakeTable)
	str(fakeName, name)
	str(fakeFile, file)
	table := []byte{0x80 | 11<<3, 0, 0, 0x80 | 13<<3, 2}
	word(fakeTable+16, uint64(len(table)))
	copy(mem[fakeTable+32:], table)
	return mem
}

func TestPythonVersions(t *testing.T) {
	for name, want := range map[string]int{"python3.11": 11, "libpython3.12.so.1.0": 12, "python3.13t": 13, "python3": 0, "node": 0} {
		if got, ok := pythonMinorOfName(name); got != want || ok != (want != 0) {
			t.Errorf("%s is 3.%d, %v", name, got, ok)
		}
	}
	var offsets [pythonOffsetBytes]byte
	copy(offsets[:], pythonCookie)
	for version, want := range map[uint64]error{0x030f00f0: ErrPythonVersion, 0x040000f0: ErrPythonVersion, 0x030e00f0: nil} {
		binary.NativeEndian.PutUint64(offsets[8:], version)
		if _, err := parsePythonOffsets(offsets[:]); !errors.Is(err, want) {
			t.Errorf("%#x: %v", version, err)
		}
	}
	if _, err := FindPython(os.Getpid()); !errors.Is(err, ErrNoPython) {
		t.Errorf("this process: %v", err)
	}
}

func TestPythonName(t *testing.T) {
	for file, want := range map[string]string{
		"/srv/x/app.py":                                   "app.f",
		"/srv/x/app/__init__.py":                          "app.f",
		"/srv/x/app/__main__.py":                          "app.__main__.f",
		"/usr/lib/python3.11/json/decoder.py":             "json.decoder.f",
		"/usr/lib/python3.11/json/__init__.py":            "json.f",
		"/usr/lib/python3/dist-packages/requests/api.py":  "requests.api.f",
		"/v/lib/python3.12/site-packages/a/b/__init__.py": "a.b.f",
		"/home/python3.11/x.py":                           "x.f",
		"<frozen importlib._bootstrap>":                   "importlib._bootstrap.f",
		"<string>":                                        "<string>.f",
		"relative.py":                                     "relative.f",
		"/srv/noext":                                      "noext.f",
		"":                                                "f",
	} {
		if got := PythonName(Frame{Function: "f", File: file}); got != want {
			t.Errorf("%s: %s, want %s", file, got, want)
		}
	}
}

func FuzzPython(f *testing.F) {
	f.Add(newFakePython("f", "/f.py", 1), uint64(fakeCode), uint64(fakeCode+186), byte(11))
	f.Add([]byte(pythonCookie+"\xf0\x00\x0d\x03\x00\x00\x00\x00"), uint64(8), uint64(8), byte(13))
	f.Fuzz(func(t *testing.T, mem []byte, code, instr uint64, minor byte) {
		layout, ok := pythonLayouts[int(minor)]
		if !ok {
			var err error
			if layout, err = parsePythonOffsets(mem); err != nil {
				if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrPythonVersion) {
					t.Fatal(err)
				}
				return
			}
		}
		p := NewPython(bytes.NewReader(mem), layout, code, 0)
		frames, _ := p.Stack(int(instr))
		if len(frames) > maxPythonFrames {
			t.Fatalf("%d frames", len(frames))
		}
		p.Resolve(layout.pythonFrame(code, instr, minor))
	})
}

func FuzzPythonLines(f *testing.F) {
	f.Add([]byte{0x80 | 11<<3, 0, 0, 0x80 | 13<<3, 2, 0xf8, 0xf0, 0x41, 0x02, 1, 1, 1}, 7, int64(3))
	f.Fuzz(func(t *testing.T, table []byte, line int, unit int64) {
		(&pythonCode{line: line, table: table}).lineAt(unit)
	})
}

func ExamplePython() {
	p := NewPython(bytes.NewReader(newFakePython("Worker.run", "/srv/app.py", 3)), pythonLayouts[11], 0, 0)
	frame, _ := p.Resolve(PythonFrame{Code: fakeCode, Instr: fakeCode + 184})
	fmt.Println(frame.Function, frame.File, frame.Line)
	// Output: Worker.run /srv/app.py 4
}
