package uprobes

import (
	"debug/elf"
	"os/exec"
	"testing"
)

// BenchmarkAnalyze analyses all functions of the go tool, about 15,000, each
// iteration.
func BenchmarkAnalyze(b *testing.B) {
	path, err := exec.LookPath("go")
	if err != nil {
		b.Skip(err)
	}
	fns := loadFuncs(b, path, elf.EM_X86_64)
	bytes := 0
	for i := range fns {
		bytes += len(fns[i].code)
	}
	b.SetBytes(int64(bytes))
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		for i := range fns {
			_, _ = Analyze(elf.EM_X86_64, fns[i].code, fns[i].Function, Options{NeedArgs: true, Optimized5ByteNop: true})
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(fns)), "ns/func")
}
