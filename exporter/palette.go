package exporter

import (
	"fmt"
	"math"
)

// oklch is a colour by lightness and chroma (0 to 1) and hue (degrees): equal
// lightness looks equally bright.
type oklch struct{ l, c, h float64 }

// hex returns the colour as #rrggbb of sRGB, which every viewer of images knows.
// Facts: Björn Ottosson, "A perceptual color space for image processing".
func (o oklch) hex() string {
	a, b := o.c*math.Cos(o.h*math.Pi/180), o.c*math.Sin(o.h*math.Pi/180)
	cube := func(v float64) float64 { return v * v * v }
	l, m, s := cube(o.l+0.3963377774*a+0.2158037573*b), cube(o.l-0.1055613458*a-0.0638541728*b), cube(o.l-0.0894841775*a-1.2914855480*b)
	return fmt.Sprintf("#%02x%02x%02x",
		gamma(4.0767416621*l-3.3077115913*m+0.2309699292*s),
		gamma(-1.2684380046*l+2.6097574011*m-0.3413193965*s),
		gamma(-0.0041960863*l-0.7034186147*m+1.7076147010*s))
}

// gamma encodes a linear part of a colour as sRGB does, in 0 to 255.
func gamma(v float64) uint8 {
	v = min(max(v, 0), 1)
	if v <= 0.0031308 {
		v *= 12.92
	} else {
		v = 1.055*math.Pow(v, 1/2.4) - 0.055
	}
	return uint8(math.Round(255 * v))
}

// groupColors are colours that colour-blind people tell apart: hues of Okabe and
// Ito with different lightness. Each has one for light and one for dark grounds.
var groupColors = []struct{ light, dark oklch }{
	{oklch{0.82, 0.115, 75}, oklch{0.58, 0.11, 75}}, {oklch{0.66, 0.12, 245}, oklch{0.44, 0.11, 245}},
	{oklch{0.77, 0.10, 165}, oklch{0.53, 0.09, 165}}, {oklch{0.71, 0.11, 345}, oklch{0.47, 0.11, 345}},
	{oklch{0.86, 0.07, 232}, oklch{0.60, 0.07, 232}}, {oklch{0.71, 0.13, 45}, oklch{0.47, 0.12, 45}},
	{oklch{0.93, 0.12, 105}, oklch{0.64, 0.11, 105}}, {oklch{0.83, 0.03, 300}, oklch{0.44, 0.03, 300}},
}

// kernelColors are of the kernel, unknownColors of what is not known.
var (
	kernelColors  = [2]oklch{{0.88, 0.012, 60}, {0.39, 0.012, 60}}
	unknownColors = [2]oklch{{0.94, 0.005, 250}, {0.30, 0.005, 250}}
)

// groupColor is the colour of the group of that rank, varied a little by t (0 to
// 1), on light and on dark grounds.
func groupColor(name string, rank int, t float64) (light, dark oklch) {
	g := groupColors[rank%len(groupColors)]
	light, dark = g.light, g.dark
	switch name {
	case kernelModule:
		light, dark = kernelColors[0], kernelColors[1]
	case "":
		light, dark = unknownColors[0], unknownColors[1]
	}
	light.l += 0.06 * (t - 0.5)
	dark.l += 0.06 * (t - 0.5)
	return light, dark
}

// changeColor is the colour of a change of share: orange for more, blue for
// less, by its size in relation to the largest.
func changeColor(delta, largest float64) (light, dark oklch) {
	if size(delta) < 0.0005 {
		return oklch{0.94, 0.004, 60}, oklch{0.33, 0.004, 60}
	}
	strong := 0.15 + 0.85*min(math.Sqrt(size(delta)/max(largest, 0.005)), 1)
	h := 50.0
	if delta < 0 {
		h = 255
	}
	return oklch{0.94 - 0.28*strong, 0.02 + 0.13*strong, h}, oklch{0.33 + 0.25*strong, 0.02 + 0.12*strong, h}
}
