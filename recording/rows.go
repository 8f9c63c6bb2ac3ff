package recording

import (
	"encoding/binary"

	"github.com/sbxtrace/sbxtrace/trace"
)

// Rows are the sums per function of levels count and latency.
type Rows struct {
	Rows        []trace.Row
	Functions   []trace.Func
	First, Last uint64 // the time that they cover, ns CLOCK_MONOTONIC
}

// appendRows appends the payload of a block of sums.
func appendRows(dst []byte, rows []trace.Row, fns trace.Functions) []byte {
	var strings stringTable
	strings.reset()
	var functions table
	b := binary.AppendUvarint(nil, uint64(len(rows)))
	for i := range rows {
		r := &rows[i]
		if f := fns.Func(r.Func); f != nil {
			fn := *f
			fn.ID = r.Func
			functions.n++
			functions.bytes = appendFunc(functions.bytes, &fn, &strings)
		}
		for _, v := range []uint64{uint64(r.Func), r.Calls, r.Timed, r.Total, r.Self, r.Min, r.Max, r.Gaps} {
			b = binary.AppendUvarint(b, v)
		}
		b = append(b, bit(r.AtLeast, 1))
		b = binary.AppendUvarint(b, uint64(len(r.Ends)))
		for _, n := range r.Ends {
			b = binary.AppendUvarint(b, n)
		}
		var buckets table
		r.Hist.Each(func(lo, _, n uint64) bool {
			buckets.n++
			buckets.bytes = binary.AppendUvarint(buckets.bytes, lo)
			buckets.bytes = binary.AppendUvarint(buckets.bytes, n)
			return true
		})
		b = binary.AppendUvarint(b, buckets.n)
		b = append(b, buckets.bytes...)
	}
	dst = appendSection(dst, secStrings, strings.section(nil))
	dst = appendSection(dst, secFunctions, functions.section(nil))
	return appendSection(dst, secRows, b)
}

func parseRows(h Header, raw []byte) (*Rows, error) {
	s, err := parseSections(raw)
	if err != nil {
		return nil, err
	}
	strings, err := parseStrings(s[secStrings])
	if err != nil {
		return nil, err
	}
	out := &Rows{First: h.First, Last: h.Last}
	if out.Functions, err = parseFunctions(s[secFunctions], strings); err != nil {
		return nil, err
	}
	c := cursor{b: s[secRows], what: "sums"}
	if len(c.b) == 0 {
		return out, nil
	}
	out.Rows = make([]trace.Row, c.count(maxTable, 11))
	for i := range out.Rows {
		parseRow(&c, &out.Rows[i])
	}
	return out, c.done()
}

func parseRow(c *cursor, r *trace.Row) {
	r.Func = trace.FuncID(c.uint32())
	for _, v := range []*uint64{&r.Calls, &r.Timed, &r.Total, &r.Self, &r.Min, &r.Max, &r.Gaps} {
		*v = c.uint()
	}
	r.AtLeast = c.byte()&1 != 0
	for i := range c.count(256, 1) {
		n := c.uint()
		r.Ends[min(i, len(r.Ends)-1)] += n
	}
	n := c.count(4096, 2)
	if n > 0 {
		r.Hist = new(trace.Hist)
	}
	for range n {
		lo := c.uint()
		r.Hist.AddN(lo, c.uint())
	}
}
