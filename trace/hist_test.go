package trace

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"
)

// edges are values at the borders of buckets.
func edges() []uint64 {
	out := []uint64{0, 1, 2, 3}
	for i := 2; i < 64; i++ {
		p := uint64(1) << i
		out = append(out, p-1, p, p+1, p+p/2, p+p/16*15)
	}
	return append(out, math.MaxUint64-1, math.MaxUint64)
}

func TestHistBuckets(t *testing.T) {
	for _, v := range edges() {
		var h Hist
		h.Add(v)
		buckets := 0
		h.Each(func(lo, hi, n uint64) bool {
			buckets++
			if v < lo || v > hi || n != 1 {
				t.Errorf("%d counted %d times in %d…%d", v, n, lo, hi)
			}
			if float64(hi-lo) > float64(lo)/16 {
				t.Errorf("bucket %d…%d is wider than a 16th", lo, hi)
			}
			return true
		})
		if buckets != 1 || h.Count() != 1 {
			t.Errorf("%d is in %d buckets, count %d", v, buckets, h.Count())
		}
		if n := h.Log2()[bits.Len64(v)]; n != 1 {
			t.Errorf("%d: Log2 counts %d", v, n)
		}
		if q := h.Quantile(0.5); !near(q, v, 0.032) {
			t.Errorf("median of %d alone is %d", v, q)
		}
	}
}

func near(got, want uint64, share float64) bool {
	return math.Abs(float64(got)-float64(want)) <= share*float64(want)
}

func TestHistQuantiles(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for name, draw := range map[string]func() uint64{
		"uniform":     func() uint64 { return r.Uint64N(1_000_000) },
		"exponential": func() uint64 { return uint64(r.ExpFloat64() * 50_000) },
		"wide":        func() uint64 { return uint64(math.Exp2(r.Float64() * 50)) },
		"constant":    func() uint64 { return 777 },
	} {
		var h, a, b Hist
		kernel := make([]uint64, KernelHistSize)
		values := make([]uint64, 20_000)
		for i := range values {
			v := draw()
			values[i] = v
			h.Add(v)
			kernel[KernelBucket(v)]++
			if i%2 == 0 {
				a.Add(v)
			} else {
				b.Add(v)
			}
		}
		a.Merge(&b)
		a.Merge(nil)
		k := HistFromKernel(kernel)
		slices.Sort(values)
		for _, q := range []float64{0, 0.01, 0.5, 0.95, 0.99, 1} {
			want := values[max(int(math.Ceil(q*float64(len(values)))), 1)-1]
			if got := h.Quantile(q); !near(got, want, 0.032) {
				t.Errorf("%s: quantile %v is %d, want %d", name, q, got, want)
			}
			if got := a.Quantile(q); got != h.Quantile(q) {
				t.Errorf("%s: quantile %v of halves merged is %d, of all %d", name, q, got, h.Quantile(q))
			}
			if got := k.Quantile(q); !near(got, want, 0.1) {
				t.Errorf("%s: kernel-side quantile %v is %d, want %d", name, q, got, want)
			}
		}
		if k.Count() != h.Count() || a.Count() != h.Count() {
			t.Errorf("%s: counts %d, %d, want %d", name, k.Count(), a.Count(), h.Count())
		}
	}
}

func TestHistFromKernel(t *testing.T) {
	last := -1
	for _, v := range slices.Sorted(slices.Values(edges())) {
		i := KernelBucket(v)
		if i < last || i >= KernelHistSize {
			t.Fatalf("bucket of %d is %d after %d", v, i, last)
		}
		last = i
		counters := make([]uint64, KernelHistSize+3)
		counters[i] = 2
		counters[KernelHistSize] = 9 // beyond the layout
		h := HistFromKernel(counters)
		lowest, highest := uint64(math.MaxUint64), uint64(0)
		h.Each(func(lo, hi, _ uint64) bool {
			lowest, highest = min(lowest, lo), max(highest, hi)
			return true
		})
		if h.Count() != 2 || v < lowest || v > highest {
			t.Errorf("%d became %d values in %d…%d", v, h.Count(), lowest, highest)
		}
		if KernelBucket(lowest) != i || KernelBucket(highest) != i {
			t.Errorf("%d: %d…%d is not the kernel's bucket", v, lowest, highest)
		}
	}
	if last != KernelHistSize-1 {
		t.Errorf("the largest value is in bucket %d of %d", last, KernelHistSize)
	}
	if n := HistFromKernel(nil).Count(); n != 0 {
		t.Errorf("no counters hold %d values", n)
	}
	var h Hist
	h.AddKernel(-1, 5)
	h.AddKernel(KernelHistSize, 5)
	if h.Count() != 0 {
		t.Errorf("buckets outside the layout hold %d values", h.Count())
	}
}

func TestHistEmpty(t *testing.T) {
	var none *Hist
	if none.Count() != 0 || none.Quantile(0.5) != 0 || none.Log2() != [65]uint64{} {
		t.Error("a nil histogram is not empty")
	}
	var h Hist
	h.AddN(5, 0)
	if h.Count() != 0 || h.Quantile(1) != 0 || len(h.rows) != 0 {
		t.Error("adding nothing left something")
	}
}
