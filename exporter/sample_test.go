package exporter

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/pprof/profile"
)

// The profiles of these tests as files: the commands in the documentation are
// run on them.
func TestProfileFiles(t *testing.T) {
	for name, p := range map[string]*profile.Profile{"server.pb.gz": cacheServer(), "slower.pb.gz": slowerServer()} {
		path := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(path, write(t, p, FormatPprof, Options{}), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		got, err := profile.Parse(f)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if want := string(write(t, p, FormatFolded, Options{})); string(write(t, got, FormatFolded, Options{})) != want {
			t.Errorf("%s is not the profile of these tests (go test ./exporter -update writes it)", path)
		}
	}
}
