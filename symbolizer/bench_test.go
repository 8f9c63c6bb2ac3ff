package symbolizer

import (
	"os"
	"path/filepath"
	"testing"
)

// BenchmarkFunctions measures reading the functions of a large binary of each
// kind that the machine has.
func BenchmarkFunctions(b *testing.B) {
	for _, path := range []string{"/usr/local/go/bin/go", "/usr/bin/node", "/usr/bin/python3.11", "/usr/bin/redis-server"} {
		b.Run(path, func(b *testing.B) {
			for b.Loop() {
				bin, err := Open(path)
				if err != nil {
					b.Skip(err)
				}
				funcs, err := bin.Functions()
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(len(funcs)), "functions")
				bin.Close()
			}
		})
	}
}

// BenchmarkFrames measures what an address never seen before costs: of this
// program, whose functions come from Go's table, and of a C++ program with DWARF.
func BenchmarkFrames(b *testing.B) {
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	for _, path := range []string{self, compile(b, "names.cc", "-g"), "/usr/bin/python3.11"} {
		b.Run(filepath.Base(path), func(b *testing.B) {
			bin, err := Open(path)
			if err != nil {
				b.Skip(err)
			}
			defer bin.Close()
			funcs, err := bin.Functions()
			if err != nil {
				b.Fatal(err)
			}
			for i := 0; b.Loop(); i++ {
				f := &funcs[i%len(funcs)]
				bin.inlines(f.Addr + uint64(i/len(funcs)*7)%max(f.Size, 1))
			}
		})
	}
}
