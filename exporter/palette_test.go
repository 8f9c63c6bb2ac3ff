package exporter

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"testing"
)

// sight is how a kind of eye sees linear sRGB. Facts: Machado, Oliveira and
// Fernandes, "A physiologically-based model for simulation of color vision
// deficiency", severity 1.
var sights = map[string][3][3]float64{
	"protanopia":   {{0.152286, 1.052583, -0.204868}, {0.114503, 0.786281, 0.099216}, {-0.003882, -0.048116, 1.051998}},
	"deuteranopia": {{0.367322, 0.860646, -0.227968}, {0.280085, 0.672501, 0.047413}, {-0.011820, 0.042940, 0.968881}},
}

// linear decodes #rrggbb.
func linear(t *testing.T, hex string) [3]float64 {
	var c [3]float64
	for i := range c {
		n, err := strconv.ParseUint(hex[1+2*i:3+2*i], 16, 8)
		if err != nil {
			t.Fatal(err)
		}
		if v := float64(n) / 255; v <= 0.04045 {
			c[i] = v / 12.92
		} else {
			c[i] = math.Pow((v+0.055)/1.055, 2.4)
		}
	}
	return c
}

// seen is a colour in OKLab as an eye sees it.
func seen(t *testing.T, c oklch, eye [3][3]float64) [3]float64 {
	rgb := linear(t, c.hex())
	var s [3]float64
	for i := range s {
		s[i] = min(max(eye[i][0]*rgb[0]+eye[i][1]*rgb[1]+eye[i][2]*rgb[2], 0), 1)
	}
	l := math.Cbrt(0.4122214708*s[0] + 0.5363325363*s[1] + 0.0514459929*s[2])
	m := math.Cbrt(0.2119034982*s[0] + 0.6806995451*s[1] + 0.1073969566*s[2])
	k := math.Cbrt(0.0883024619*s[0] + 0.2817188376*s[1] + 0.6299787005*s[2])
	return [3]float64{
		0.2104542553*l + 0.7936177850*m - 0.0040720468*k, 1.9779984951*l - 2.4285922050*m + 0.4505937099*k,
		0.0259040371*l + 0.7827717662*m - 0.8086757660*k,
	}
}

func distance(a, b [3]float64) float64 {
	return math.Sqrt((a[0]-b[0])*(a[0]-b[0]) + (a[1]-b[1])*(a[1]-b[1]) + (a[2]-b[2])*(a[2]-b[2]))
}

// TestColourBlindPalettes sees the colours of the groups that weigh most as the
// colour-blind do: no two of them look the same.
func TestColourBlindPalettes(t *testing.T) {
	image := [2][]oklch{{kernelColors[0]}, {kernelColors[1]}}
	for _, g := range groupColors[:5] {
		image[0], image[1] = append(image[0], g.light), append(image[1], g.dark)
	}
	page := [2][]oklch{{{0.88, 0.018, 60}}, {{0.39, 0.018, 60}}}
	number := `([\d.]+)`
	colors := regexp.MustCompile(`\[`+number+`, `+number+`, `+number+`, `+number+`\]`).FindAllStringSubmatch(embedded("color.js"), -1)
	if len(colors) != 8 {
		t.Fatalf("%d colours in the page", len(colors))
	}
	for _, m := range colors[:5] {
		var v [4]float64
		for i := range v {
			v[i], _ = strconv.ParseFloat(m[i+1], 64)
		}
		page[0], page[1] = append(page[0], oklch{v[0], v[2], v[3]}), append(page[1], oklch{v[1], v[2], v[3]})
	}
	for name, palette := range map[string][]oklch{"image": image[0], "dark image": image[1], "page": page[0], "dark page": page[1]} {
		for eye, matrix := range sights {
			for i, a := range palette {
				for j, b := range palette[:i] {
					if d := distance(seen(t, a, matrix), seen(t, b, matrix)); d < 0.05 {
						t.Errorf("%s: with %s colours %d and %d are %.3f apart (%s, %s)", name, eye, j, i, d, b.hex(), a.hex())
					}
				}
			}
		}
	}
	for eye, matrix := range sights {
		more, moreDark := changeColor(0.1, 0.1)
		less, lessDark := changeColor(-0.1, 0.1)
		for _, pair := range [][2]oklch{{more, less}, {moreDark, lessDark}} {
			if d := distance(seen(t, pair[0], matrix), seen(t, pair[1], matrix)); d < 0.15 {
				t.Errorf("with %s more and less are %.3f apart", eye, d)
			}
		}
	}
}

func TestHex(t *testing.T) {
	for want, c := range map[string]oklch{"#000000": {}, "#ffffff": {1, 0, 0}, "#ff0000": {0.62796, 0.25768, 29.234}, "#0000ff": {0.45201, 0.31321, 264.052}} {
		if got := c.hex(); got != want {
			t.Errorf("%s is %s", fmt.Sprint(c), got)
		}
	}
}
