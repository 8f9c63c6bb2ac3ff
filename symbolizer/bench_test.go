package symbolizer

import "testing"

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
