package term

// Palette holds the escape sequences in use, all empty without colour.
type Palette struct {
	Reset, Dim, Bold            string
	Red, Green, Yellow, Magenta string
	Cyan, Blue                  string
	// Lanes are told apart by hue, one per thread in turn. There is always one.
	Lanes []string
}

// NewPalette returns the colours of sbxtrace's output, or a palette without any.
func NewPalette(color bool) Palette {
	if !color {
		return Palette{Lanes: []string{""}}
	}
	return Palette{
		Reset: "\x1b[0m", Dim: "\x1b[2m", Bold: "\x1b[1m",
		Red: "\x1b[31m", Green: "\x1b[32m", Yellow: "\x1b[33m", Magenta: "\x1b[35m",
		Cyan: "\x1b[36m", Blue: "\x1b[34m",
		Lanes: []string{"\x1b[36m", "\x1b[33m", "\x1b[35m", "\x1b[32m", "\x1b[34m", "\x1b[31m"},
	}
}

// Duration returns the colour of a duration in ns: the longer the warmer.
func (p *Palette) Duration(ns uint64) string {
	switch {
	case p.Reset == "" || ns >= 10*µs && ns < ms:
		return ""
	case ns < 10*µs:
		return p.Dim
	case ns < 10*ms:
		return p.Green
	case ns < 100*ms:
		return p.Yellow
	case ns < sec:
		return p.Red
	}
	return p.Bold + p.Red
}
