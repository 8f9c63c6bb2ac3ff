package trace

import (
	"math"
	"math/bits"
	"slices"
)

// Layout of a Hist: a row holds one power of two in 16 equal buckets, so a
// bucket is at most 1/16 of its values wide and its middle at most 1/32 (3.1 %)
// away from any of them. Values below 16 have a bucket each, in row 0.
const (
	histSub     = 16
	histSubBits = 4
	histRows    = 64 - histSubBits + 1
)

// KernelHistSub is how many equal buckets per power of two the BPF programs of
// level latency keep; KernelBucket is their layout.
const (
	KernelHistSub  = 8
	kernelSubBits  = 3
	KernelHistSize = (64 - kernelSubBits + 1) * KernelHistSub
)

type histRow [histSub]uint64

// Hist counts values (ns) in buckets whose width grows with the value: a
// log-linear histogram. Only powers of two that occurred take memory, 128 bytes
// each. The zero value is empty and ready for use; it is not safe for
// concurrent use.
type Hist struct {
	count uint64
	used  uint64    // bit r: row r exists
	rows  []histRow // the rows of used, ascending
}

// Add counts one value. It allocates only when a power of two is seen for the
// first time.
func (h *Hist) Add(v uint64) { h.AddN(v, 1) }

// AddN counts a value n times.
func (h *Hist) AddN(v, n uint64) {
	if n == 0 {
		return
	}
	r, sub := uint(0), v
	if v >= histSub {
		shift := uint(bits.Len64(v)) - histSubBits - 1
		r, sub = shift+1, v>>shift&(histSub-1)
	}
	h.row(r)[sub] += n
	h.count += n
}

// row returns row r, made when missing.
func (h *Hist) row(r uint) *histRow {
	i := bits.OnesCount64(h.used & (1<<r - 1))
	if h.used&(1<<r) == 0 {
		h.rows = slices.Insert(h.rows, i, histRow{})
		h.used |= 1 << r
	}
	return &h.rows[i]
}

// Count returns how many values were added.
func (h *Hist) Count() uint64 {
	if h == nil {
		return 0
	}
	return h.count
}

// Merge adds the values of o, which it leaves as it is.
func (h *Hist) Merge(o *Hist) {
	if o == nil {
		return
	}
	i := 0
	for used := o.used; used != 0; used &= used - 1 {
		row := h.row(uint(bits.TrailingZeros64(used)))
		for sub, n := range o.rows[i] {
			row[sub] += n
		}
		i++
	}
	h.count += o.count
}

// Each calls f for every bucket that holds values, ascending: n values v with
// lo <= v <= hi.
func (h *Hist) Each(f func(lo, hi, n uint64) bool) {
	if h == nil {
		return
	}
	i := 0
	for used := h.used; used != 0; used &= used - 1 {
		r := uint(bits.TrailingZeros64(used))
		for sub, n := range h.rows[i] {
			if n == 0 {
				continue
			}
			lo, hi := histBucket(r, uint64(sub))
			if !f(lo, hi, n) {
				return
			}
		}
		i++
	}
}

func histBucket(r uint, sub uint64) (lo, hi uint64) {
	if r == 0 {
		return sub, sub
	}
	lo = (histSub + sub) << (r - 1)
	return lo, lo + 1<<(r-1) - 1
}

// Quantile returns a value that the share q (0 to 1) of all values does not
// exceed, exact to 3.1 %. It returns 0 for an empty histogram.
func (h *Hist) Quantile(q float64) uint64 {
	if h.Count() == 0 {
		return 0
	}
	rank := uint64(math.Ceil(q * float64(h.count)))
	rank = min(max(rank, 1), h.count)
	var value, seen uint64
	h.Each(func(lo, hi, n uint64) bool {
		value = lo + (hi-lo)/2
		seen += n
		return seen < rank
	})
	return value
}

// Log2 returns the counts by power of two: element i counts the values of
// i significant bits, from 1<<(i-1) to 1<<i-1; element 0 counts zeros.
func (h *Hist) Log2() [65]uint64 {
	var out [65]uint64
	h.Each(func(lo, _, n uint64) bool {
		out[bits.Len64(lo)] += n
		return true
	})
	return out
}

// KernelBucket returns the index of a value's bucket in a kernel-side
// histogram of KernelHistSize counters: values below 8 have one each, above
// that every power of two has 8 equal ones. Its twin is bucket_of in
// bpf/stateful.h.
func KernelBucket(v uint64) int {
	if v < KernelHistSub {
		return int(v)
	}
	shift := bits.Len64(v) - kernelSubBits - 1
	return (shift+1)*KernelHistSub + int(v>>shift&(KernelHistSub-1))
}

// AddKernel counts the n values of a kernel-side bucket. The bucket spans two
// of a Hist's and is shared out between them, so quantiles are exact to 6.3 %.
// Indices outside the kernel's layout are ignored.
func (h *Hist) AddKernel(bucket int, n uint64) {
	if bucket < 0 || bucket >= KernelHistSize {
		return
	}
	if bucket < 2*KernelHistSub {
		h.AddN(uint64(bucket), n)
		return
	}
	shift := uint(bucket/KernelHistSub - 1)
	lo := (KernelHistSub + uint64(bucket%KernelHistSub)) << shift
	h.AddN(lo, n-n/2)
	h.AddN(lo+1<<(shift-1), n/2)
}

// HistFromKernel returns the histogram of kernel-side counters, indexed by
// KernelBucket.
func HistFromKernel(counters []uint64) *Hist {
	h := new(Hist)
	for i, n := range counters {
		h.AddKernel(i, n)
	}
	return h
}
