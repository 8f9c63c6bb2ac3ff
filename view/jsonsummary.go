package view

import "github.com/sbxtrace/sbxtrace/trace"

// Summary prints a line per row, in the order given, and one with the totals.
func (j *JSON) Summary(rows []trace.Row, totals *trace.Totals) {
	for i := range rows {
		j.summary(&rows[i])
	}
	b := append(j.out.buf, `{"type":"totals","calls":`...)
	b = appendUint(b, totals.Calls)
	b = append(b, `,"elapsed":`...)
	b = appendUint(b, totals.Elapsed())
	b = append(b, `,"lost":`...)
	b = appendUint(b, totals.AllLost())
	b = append(b, `,"orphans":`...)
	b = appendUint(b, totals.Orphans)
	b = append(b, `,"gaps":`...)
	b = appendUint(b, totals.Gaps)
	if totals.Stacks > 0 {
		b = append(b, `,"stacks":`...)
		b = appendUint(b, totals.Stacks)
		b = append(b, `,"stacks_cut":`...)
		b = appendUint(b, totals.Cut)
	}
	j.end(appendEnds(b, totals.Ends[:]))
}

func (j *JSON) summary(r *trace.Row) {
	b := append(j.out.buf, `{"type":"summary",`...)
	b = append(b, j.name(r.Func).fields...)
	b = append(b, `,"calls":`...)
	b = appendUint(b, r.Calls)
	b = append(b, `,"at_least":`...)
	if r.AtLeast {
		b = append(b, "true"...)
	} else {
		b = append(b, "false"...)
	}
	if measured(r) {
		for _, f := range [...]struct {
			key   string
			value uint64
		}{
			{`,"total":`, r.Total}, {`,"self":`, r.Self}, {`,"timed":`, r.Timed},
		} {
			b = appendUint(append(b, f.key...), f.value)
		}
	}
	if r.Timed > 0 {
		for _, f := range [...]struct {
			key   string
			value uint64
		}{
			{`,"min":`, r.Min}, {`,"p50":`, r.Quantile(0.5)}, {`,"p95":`, r.Quantile(0.95)},
			{`,"p99":`, r.Quantile(0.99)}, {`,"max":`, r.Max},
		} {
			b = appendUint(append(b, f.key...), f.value)
		}
	}
	if r.Gaps > 0 {
		b = appendUint(append(b, `,"gaps":`...), r.Gaps)
	}
	j.end(appendEnds(b, r.Ends[:]))
}

// measured reports whether the durations of r's calls were measured: level
// count only counts.
func measured(r *trace.Row) bool {
	return r.Timed > 0 || r.Total > 0 || r.Self > 0 || r.Unreturned() > 0
}

// appendEnds appends how many calls ended otherwise than by returning, if any
// did.
func appendEnds(b []byte, ends []uint64) []byte {
	first := true
	for k, n := range ends {
		if n == 0 || trace.EndKind(k) == trace.EndReturn {
			continue
		}
		if first {
			b = append(b, `,"ends":{`...)
		} else {
			b = append(b, ',')
		}
		first = false
		b = append(b, '"')
		b = append(b, trace.EndKind(k).String()...)
		b = append(b, `":`...)
		b = appendUint(b, n)
	}
	if !first {
		b = append(b, '}')
	}
	return b
}
