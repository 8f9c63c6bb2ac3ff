package symbolizer

import (
	"cmp"
	"slices"
)

func sortRanges(rs []addrRange) {
	slices.SortFunc(rs, func(a, b addrRange) int { return cmp.Compare(a.start, b.start) })
}

// inRanges reports whether addr is in one of the ranges. Files have a handful
// of them, so the search is linear.
func inRanges(rs []addrRange, addr uint64) bool {
	for _, r := range rs {
		if addr >= r.start && addr < r.end {
			return true
		}
	}
	return false
}

// rangeEnd returns the end of the range that has addr.
func rangeEnd(rs []addrRange, addr uint64) (uint64, bool) {
	for _, r := range rs {
		if addr >= r.start && addr < r.end {
			return r.end, true
		}
	}
	return 0, false
}
