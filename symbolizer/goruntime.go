package symbolizer

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// GoRuntime says where Go's runtime keeps what is known of goroutines, as offsets
// in bytes on 64-bit machines. Source: the debug information of programs built
// by the releases (runtime/runtime2.go).
type GoRuntime struct {
	GoID    uint32 // goid in runtime.g
	M       uint32 // m in runtime.g: the thread that runs it
	SchedBP uint32 // sched.bp in runtime.g: the frame pointer of where it left its stack
	Labels  uint32 // labels in runtime.g: what runtime/pprof has set
	CurG    uint32 // curg in runtime.m: the goroutine that runs there, also while on the system stack

	// LabelMap: labels points to a map[string]string (up to Go 1.23) instead of
	// a list of pairs.
	LabelMap bool
}

// goRuntimes are the layouts by the first minor release that has them, newest
// first. Measured: 1.18, 1.20 to 1.26.
var goRuntimes = []struct {
	minor int
	GoRuntime
}{
	{26, GoRuntime{GoID: 152, M: 48, SchedBP: 96, Labels: 352, CurG: 184}},
	{25, GoRuntime{GoID: 152, M: 48, SchedBP: 96, Labels: 344, CurG: 184}}, // runtime.gobuf without ret
	{24, GoRuntime{GoID: 160, M: 48, SchedBP: 104, Labels: 352, CurG: 192}},
	{23, GoRuntime{GoID: 160, M: 48, SchedBP: 104, Labels: 352, CurG: 192, LabelMap: true}}, // syscallbp
	{21, GoRuntime{GoID: 152, M: 48, SchedBP: 104, Labels: 344, CurG: 192, LabelMap: true}},
	{18, GoRuntime{GoID: 152, M: 48, SchedBP: 104, Labels: 360, CurG: 192, LabelMap: true}},
}

// GoRuntimeOf returns the layout for a release ("go1.26.8"), or for "devel" the
// newest known. ok is false for releases before Go 1.18.
func GoRuntimeOf(release string) (layout GoRuntime, ok bool) {
	minor := goMinor(release)
	if minor == 0 {
		return goRuntimes[0].GoRuntime, strings.HasPrefix(release, "devel")
	}
	for i := range goRuntimes {
		if minor >= goRuntimes[i].minor {
			return goRuntimes[i].GoRuntime, true
		}
	}
	return GoRuntime{}, false
}

// goMinor is 26 for "go1.26.8", 0 for what is no release.
func goMinor(release string) int {
	rest, ok := strings.CutPrefix(release, "go1.")
	if !ok {
		return 0
	}
	digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
	n, err := strconv.Atoi(rest[:digits])
	if err != nil {
		return 0
	}
	return n
}

// GoLabel is a label that a program has given to a goroutine through
// runtime/pprof.
type GoLabel struct{ Key, Value string }

// Limits on the labels of one goroutine; longer strings are cut.
const (
	maxGoLabels     = 64
	maxGoLabelBytes = 1024
)

// ReadLabels reads a goroutine's labels from the memory of its process; labels
// is the pointer in runtime.g. They are sorted by key. A set of labels never
// changes, but its memory may be used again once the goroutine has others.
func (l *GoRuntime) ReadLabels(mem io.ReaderAt, labels uint64) ([]GoLabel, error) {
	if labels == 0 {
		return nil, nil
	}
	m := memory{mem}
	var (
		out []GoLabel
		err error
	)
	if l.LabelMap {
		out, err = m.goMapLabels(labels)
	} else {
		out, err = m.goListLabels(labels)
	}
	if err != nil {
		return nil, fmt.Errorf("goroutine labels: %w", err)
	}
	slices.SortFunc(out, func(a, b GoLabel) int { return cmp.Compare(a.Key, b.Key) })
	return out, nil
}

// goListLabels reads a slice of pairs of strings.
func (m memory) goListLabels(addr uint64) ([]GoLabel, error) {
	slice, err := m.words(addr, 3)
	if err != nil {
		return nil, err
	}
	n := slice[1]
	if n > slice[2] || n > 1<<20 {
		return nil, fmt.Errorf("%d of %d labels: %w", n, slice[2], ErrMalformed)
	}
	if n == 0 {
		return nil, nil
	}
	words, err := m.words(slice[0], int(4*min(n, maxGoLabels)))
	if err != nil {
		return nil, err
	}
	out := make([]GoLabel, len(words)/4)
	for i := range out {
		if out[i], err = m.goLabel(words[4*i:]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// goLabel reads the pair of strings whose headers are given.
func (m memory) goLabel(words []uint64) (GoLabel, error) {
	key, err := m.bytes(words[0], words[1], maxGoLabelBytes)
	if err != nil {
		return GoLabel{}, err
	}
	value, err := m.bytes(words[2], words[3], maxGoLabelBytes)
	return GoLabel{string(key), string(value)}, err
}

// goMapLabels reads a map[string]string as it was up to Go 1.23 (runtime/map.go).
func (m memory) goMapLabels(addr uint64) ([]GoLabel, error) {
	const (
		buckets, oldBuckets = 2, 3 // words of runtime.hmap: count, flags and B, buckets, oldbuckets
		slots               = 8    // of runtime.bmap: hashes, keys, values, overflow
		bucketWords         = 1 + slots*2 + slots*2 + 1
		minHash             = 5 // smaller ones mark empty and moved slots
	)
	hmap, err := m.uint64(addr)
	if err != nil || hmap == 0 {
		return nil, err
	}
	head, err := m.words(hmap, 4)
	if err != nil {
		return nil, err
	}
	if head[0] == 0 {
		return nil, nil
	}
	log2 := head[1] >> 8 & 0xff
	if head[0] > 1<<20 || log2 > 20 {
		return nil, fmt.Errorf("map of %d labels: %w", head[0], ErrMalformed)
	}
	var out []GoLabel
	read := 0
	for _, table := range []struct{ addr, n uint64 }{{head[buckets], 1 << log2}, {head[oldBuckets], 1 << max(log2, 1) / 2}} {
		for i := uint64(0); i < table.n && table.addr != 0; i++ {
			for bucket := table.addr + i*bucketWords*8; bucket != 0; read++ {
				if read >= 4*maxGoLabels || len(out) >= maxGoLabels {
					return out, nil
				}
				words, err := m.words(bucket, bucketWords)
				if err != nil {
					return nil, err
				}
				for slot := range slots {
					if hash := byte(words[0] >> (8 * slot)); hash < minHash {
						continue
					}
					keys, values := words[1+2*slot:], words[1+2*slots+2*slot:]
					label, err := m.goLabel([]uint64{keys[0], keys[1], values[0], values[1]})
					if err != nil {
						return nil, err
					}
					out = append(out, label)
				}
				bucket = words[bucketWords-1]
			}
		}
	}
	return out, nil
}
