package replay

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/sbxtrace/sbxtrace/recording"
)

// ErrTime is wrapped by the errors of ParseTime.
var ErrTime = errors.New("no time")

// ParseTime reads a time of the recording f as a user writes it and returns it in
// ns of CLOCK_MONOTONIC: from the beginning ("1.5s", "+300ms"), before the end
// ("-2s"), as JSON lines have it ("1800000000100"), or by the wall clock
// ("15:04:05.123" of the day on which the recording began, or with a date in
// RFC 3339).
func ParseTime(f *recording.File, s string) (uint64, error) {
	first, last := f.Span()
	if first == 0 {
		return 0, fmt.Errorf("%w: nothing is recorded", ErrTime)
	}
	if ns, err := strconv.ParseUint(s, 10, 64); err == nil && ns >= first/2 {
		return ns, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		if strings.HasPrefix(s, "-") {
			return last - min(uint64(-d), last-first), nil
		}
		return first + uint64(d), nil
	}
	wall, known := f.Wall(first)
	begin := time.Unix(0, int64(first)+wall)
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999", "15:04:05.999999999", "15:04"} {
		t, err := time.ParseInLocation(layout, s, time.Local)
		if err != nil {
			continue
		}
		if !known {
			return 0, fmt.Errorf("%w: the recording does not say what the wall clock was", ErrTime)
		}
		if t.Year() == 0 {
			t = time.Date(begin.Year(), begin.Month(), begin.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.Local)
			if t.Before(begin.Add(-12 * time.Hour)) {
				t = t.AddDate(0, 0, 1) // past midnight
			}
		}
		return uint64(max(t.UnixNano()-wall, 0)), nil
	}
	return 0, fmt.Errorf("%w %q: it takes 1.5s from the beginning, -2s before the end, 15:04:05.123 by the clock, or ns as in JSON", ErrTime, s)
}
