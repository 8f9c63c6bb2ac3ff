package view

// ansi holds the escape sequences in use, all empty without colour.
type ansi struct {
	reset, dim, bold            string
	red, green, yellow, magenta string
	lanes                       []string // told apart by hue, one per lane in turn
}

func newANSI(color bool) ansi {
	if !color {
		return ansi{lanes: []string{""}}
	}
	return ansi{
		reset: "\x1b[0m", dim: "\x1b[2m", bold: "\x1b[1m",
		red: "\x1b[31m", green: "\x1b[32m", yellow: "\x1b[33m", magenta: "\x1b[35m",
		lanes: []string{"\x1b[36m", "\x1b[33m", "\x1b[35m", "\x1b[32m", "\x1b[34m", "\x1b[31m"},
	}
}

// duration returns the colour of a duration: the longer the warmer.
func (a *ansi) duration(ns uint64) string {
	switch {
	case a.reset == "" || ns >= 10*µs && ns < ms:
		return ""
	case ns < 10*µs:
		return a.dim
	case ns < 10*ms:
		return a.green
	case ns < 100*ms:
		return a.yellow
	case ns < sec:
		return a.red
	}
	return a.bold + a.red
}
