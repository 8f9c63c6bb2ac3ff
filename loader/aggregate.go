package loader

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/sbxtrace/sbxtrace/bpf"
	"github.com/sbxtrace/sbxtrace/trace"
)

// Latency is what level latency has measured of one function.
type Latency struct {
	Returns uint64 // calls whose end was seen
	Total   uint64 // ns, recursive calls left out
	Self    uint64 // ns outside traced callees
	Min     uint64 // ns
	Max     uint64 // ns
	Buckets []uint64
}

// Latencies reads what level latency has measured so far, by function.
func (s *Session) Latencies() (map[trace.FuncID]*Latency, error) {
	out := make(map[trace.FuncID]*Latency)
	var key bpf.TraceBucketKey
	var n uint64
	it := s.coll.Maps["buckets"].Iterate()
	for it.Next(&key, &n) {
		id := trace.FuncID(key.Func)
		l := out[id]
		if l == nil {
			l = &Latency{}
			out[id] = l
		}
		if need := int(key.Bucket) + 1 - len(l.Buckets); need > 0 {
			l.Buckets = append(l.Buckets, make([]uint64, need)...)
		}
		l.Buckets[key.Bucket] += n
	}
	// A map that grows while it is read may show a key twice or abort the
	// walk; what was read stands.
	if err := it.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return nil, fmt.Errorf("read histograms: %w", err)
	}
	for id, l := range out {
		var v bpf.TraceLatency
		if err := s.coll.Maps["latencies"].Lookup(uint32(id), &v); err != nil {
			return nil, fmt.Errorf("read latency of function %d: %w", id, err)
		}
		l.Returns, l.Total, l.Self, l.Min, l.Max = v.Returns, v.Total, v.Self, ^v.Min, v.Max
	}
	return out, nil
}
