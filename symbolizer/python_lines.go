package symbolizer

// lineAt returns the line of a code unit, by the location table of CPython 3.11
// and later (co_linetable, Objects/locations.md): entries of some code units
// each, in order, whose lines are told by their differences.
func (c *pythonCode) lineAt(unit int64) int {
	const (
		noLocation   = 15
		longForm     = 14
		noColumns    = 13
		oneLine      = 10 // to 12: the difference is the code less this
		lengthBits   = 7
		codeShift    = 3
		codeBits     = 15
		firstOfEntry = 0x80
	)
	line := c.line
	at := int64(0) // code unit
	for rest := c.table; len(rest) > 0; {
		head := rest[0]
		rest = rest[1:]
		if head&firstOfEntry == 0 {
			return c.line // not the start of an entry: not a table that we know
		}
		code := head >> codeShift & codeBits
		switch {
		case code == noLocation:
		case code == longForm, code == noColumns:
			line += signedVarint(rest)
		case code >= oneLine:
			line += int(code) - oneLine
		}
		at += int64(head&lengthBits) + 1
		if unit < at {
			if code == noLocation {
				return 0
			}
			return line
		}
		for len(rest) > 0 && rest[0]&firstOfEntry == 0 {
			rest = rest[1:]
		}
	}
	return c.line
}

// signedVarint reads groups of 6 bits, the lowest first, each but the last with
// bit 6 set; the lowest bit of the number is its sign.
func signedVarint(b []byte) int {
	n, shift := uint32(0), 0
	for _, c := range b {
		n |= uint32(c&63) << shift
		shift += 6
		if c&64 == 0 || shift > 30 {
			break
		}
	}
	if n&1 != 0 {
		return -int(n >> 1)
	}
	return int(n >> 1)
}
