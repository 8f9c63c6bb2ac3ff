package replay

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"github.com/sbxtrace/sbxtrace/recording"
)

// FuzzReplay plays blocks of any content: every call that is entered is left,
// and the views print whatever comes.
func FuzzReplay(f *testing.F) {
	data, err := os.ReadFile("../recording/testdata/v1.sbx")
	if err != nil {
		f.Fatal(err)
	}
	file, err := recording.NewFile(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		f.Fatal(err)
	}
	for i := range file.Blocks {
		raw, err := file.Payload(i)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw, uint64(0))
		f.Add(raw, file.Blocks[i].Header.First+1000)
	}
	f.Fuzz(func(t *testing.T, raw []byte, from uint64) {
		h := recording.Header{Kind: recording.BlockEvents}
		data := recording.Pack(&h, raw)
		file, err := recording.NewFile(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			t.Fatal(err)
		}
		p := NewPlayer(file, nil)
		out := newPrinted(p.Names(), p.Names().Frame)
		p.SetSink(out)
		err = p.Run(Options{From: from})
		if err != nil && !errors.Is(err, recording.ErrCorrupt) {
			t.Fatalf("error of no kind: %v", err)
		}
		out.end(t, p.Orphans())
	})
}
