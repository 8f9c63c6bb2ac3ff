package targets

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// variant is how a target is compiled. The zero value is the toolchain's
// everyday build: gcc -O2, position independent, dynamically linked, with
// debug information (Go: plain go build, which is static).
type variant struct {
	compiler string // C and C++: "gcc" (default), "clang", "musl"
	opt      string // "", "0", "1", "2", "3", "s"
	noPIE    bool
	pie      bool
	static   bool
	strip    bool
	split    bool
	mini     bool
	flags    []string
}

// Option changes how [Build] compiles a target.
type Option func(*variant)

// OptLevel sets the optimisation level ("0", "1", "2", "3", "s"), 2 by default.
// For Go, 0 means -gcflags=all=-N -l and the others mean the default.
func OptLevel(level string) Option { return func(v *variant) { v.opt = level } }

// NoPIE links at a fixed address. Go builds are that by default.
func NoPIE() Option { return func(v *variant) { v.noPIE = true } }

// PIE builds Go with -buildmode=pie. The other languages do so by default.
func PIE() Option { return func(v *variant) { v.pie = true } }

// Static links without shared libraries (static PIE unless NoPIE is given).
// Go builds are static by default.
func Static() Option { return func(v *variant) { v.static = true } }

// Strip removes the symbol table and debug information (Go: -ldflags=-s -w).
func Strip() Option { return func(v *variant) { v.strip = true } }

// SplitDebug strips the program and leaves the symbols in NAME.debug beside it,
// named by a .gnu_debuglink section.
func SplitDebug() Option { return func(v *variant) { v.split = true } }

// MiniDebug strips the program and puts a compressed symbol table of its
// functions into .gnu_debugdata, as Fedora does.
func MiniDebug() Option { return func(v *variant) { v.mini = true } }

// Clang compiles C and C++ with clang 19 instead of gcc.
func Clang() Option { return func(v *variant) { v.compiler = "clang" } }

// Musl compiles C with musl-gcc instead of gcc.
func Musl() Option { return func(v *variant) { v.compiler = "musl" } }

// Flags appends flags to the compiler's command line (Go: to go build).
func Flags(flags ...string) Option {
	return func(v *variant) { v.flags = append(v.flags, flags...) }
}

func newVariant(opts []Option) variant {
	var v variant
	for _, option := range opts {
		option(&v)
	}
	return v
}

// String returns the variant's name: a directory name, unique per variant,
// "default" for the zero value.
func (v variant) String() string {
	var parts []string
	add := func(yes bool, part string) {
		if yes {
			parts = append(parts, part)
		}
	}
	add(v.compiler != "", v.compiler)
	add(v.opt != "", "O"+v.opt)
	add(v.noPIE, "nopie")
	add(v.pie, "pie")
	add(v.static, "static")
	add(v.strip, "strip")
	add(v.split, "split")
	add(v.mini, "mini")
	if len(v.flags) > 0 {
		sum := sha256.Sum256([]byte(strings.Join(v.flags, "\x00")))
		parts = append(parts, "x"+hex.EncodeToString(sum[:4]))
	}
	if len(parts) == 0 {
		return "default"
	}
	return strings.Join(parts, "-")
}
