package tracer

import (
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// Who opens a watched file for writing waits until its probes are out.
func TestOverwriteWaits(t *testing.T) {
	id := fileID{1, 2}
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out atomic.Bool
	told := make(chan fileID, 8)
	w, err := watchOverwrites(func(id fileID) {
		time.Sleep(20 * time.Millisecond) // as taking probes out does
		out.Store(true)
		told <- id
	})
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	for range 2 { // a second time is none
		if err := w.add(path, id); err != nil {
			t.Fatal(err)
		}
	}
	if f, err := os.Open(path); err != nil { // reading is nobody's business
		t.Fatal(err)
	} else {
		f.Close()
	}
	if out.Load() {
		t.Fatal("it is told of a reader")
	}
	if err := os.WriteFile(path, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	if !out.Load() {
		t.Error("the file was written to before its probes were out")
	}
	if got := <-told; got != id {
		t.Errorf("told of %v", got)
	}
	// It can be watched again.
	if err := w.add(path, id); err != nil {
		t.Fatal(err)
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("newer"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	if len(told) != 0 {
		t.Error("told after the end of the watch")
	}
}

// Where there can be no lease it is told when the first byte is written.
func TestOverwriteWithoutLease(t *testing.T) {
	id := fileID{3, 4}
	path := filepath.Join(t.TempDir(), "program")
	writer, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	told := make(chan fileID, 8)
	w, err := watchOverwrites(func(id fileID) { told <- id })
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	if err := w.add(path, id); err != nil {
		t.Fatal(err)
	}
	if len(w.leases) != 0 {
		t.Fatal("there is a lease on a file that is open for writing")
	}
	if _, err := writer.WriteString("new"); err != nil {
		t.Fatal(err)
	}
	if got := <-told; got != id {
		t.Errorf("told of %v", got)
	}
}

func TestContents(t *testing.T) {
	path := filepath.Join(t.TempDir(), "program")
	if contentsOf(path) != (contents{}) {
		t.Error("what does not exist has contents")
	}
	write := func(text string) contents {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return contentsOf(path)
	}
	first := write("one")
	if first == (contents{}) || contentsOf(path) != first {
		t.Errorf("contents %v, then %v", first, contentsOf(path))
	}
	if write("three") == first {
		t.Error("another size makes no difference")
	}
	if err := os.Chtimes(path, time.Time{}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if a, b := contentsOf(path), write("other"); a == b {
		t.Error("another time makes no difference")
	}
}

func TestContentsChanged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	was := contentsOf(path)
	if was.changed(path) {
		t.Error("a file that nobody touched has changed")
	}
	if err := os.WriteFile(path, []byte("another"), 0o600); err != nil {
		t.Fatal(err)
	}
	if !was.changed(path) {
		t.Error("a file of another size has not changed")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if was.changed(path) {
		t.Error("a file that cannot be looked at has changed")
	}
}
