// Package targets builds and runs the programs that sbxtrace's tests trace.
//
// Every program counts its own calls and prints them as one JSON line, so a
// test can compare what a tracer saw with what happened. The sources are in
// src/<name>/. [Build] compiles one of them in a chosen variant and caches the
// result, [Start] runs it and holds it until the test has attached:
//
//	p := targets.Start(t, targets.Build(t, "calls", targets.OptLevel(0)))
//	p.Ready()          // it lives and waits
//	... attach to p.PID() ...
//	p.Go()             // it works
//	truth := p.Truth() // what it did; it still lives
//	p.Quit()           // and ends
//
// With the argument --auto a target waits for nothing, which suits programs
// that are started by the tracer itself.
//
// Machines without compilers (the virtual machines of vmtests) use a directory
// that [Prebuild] filled, named by the environment variable SBXTRACE_TARGETS.
package targets

import "sort"

// language says which toolchain builds a target.
type language int

const (
	langC language = iota
	langCPP
	langRust
	langCargo
	langGo
)

// target describes one program.
type target struct {
	lang  language
	flags []string  // compiler flags besides those of the variant
	libs  []library // shared libraries that are built beside the program
	main  string    // Go: package directory below src, when not the target's name
	// needsGCC names why a target's sources are for gcc only, "" if they are not.
	needsGCC string
	// dynamic targets make no sense without shared libraries.
	dynamic bool
	cgo     bool // Go: with C in it
	// noMusl says why musl cannot build it, "" if it can.
	noMusl string
}

// library is a shared library built from src/<target>/<source>.
type library struct {
	file   string // output, beside the program
	source string
	linked bool // linked to the program, found through $ORIGIN; else only dlopened
	flags  []string
}

// registry lists every target by name.
var registry = map[string]target{
	"allocs":  {lang: langC},
	"busy":    {lang: langC},
	"calls":   {lang: langC},
	"crash":   {lang: langC},
	"demo":    {lang: langC},
	"exits":   {lang: langC},
	"frames":  {lang: langC},
	"forker":  {lang: langC},
	"hot":     {lang: langC},
	"longjmp": {lang: langC},
	"recurse": {lang: langC},
	"shares":  {lang: langC},
	"signals": {lang: langC},
	"slow":    {lang: langC},
	"threads": {lang: langC},
	"waits":   {lang: langC},
	"vectors": {lang: langC},

	"dlopen": {lang: langC, dynamic: true, libs: []library{
		{file: "libplug.so", source: "plug.c"}, {file: "libother.so", source: "other.c"}}},
	"libcaller": {lang: langC, dynamic: true, libs: []library{
		{file: "libcallee.so", source: "callee.c", linked: true}}},
	"ifunc":     {lang: langC, noMusl: "musl has no indirect functions"},
	"ucontext":  {lang: langC, noMusl: "musl has no makecontext"},
	"prologues": {lang: langC, flags: []string{"-fcf-protection=full"}},

	"cxx":        {lang: langCPP},
	"cxxshares":  {lang: langCPP},
	"exceptions": {lang: langCPP},
	"plugin": {lang: langCPP, dynamic: true, flags: []string{"-fno-exceptions"}, libs: []library{
		{file: "libraise.so", source: "raise.cc", flags: []string{"-fexceptions"}}}},

	"rustcalls":  {lang: langRust},
	"rustpanics": {lang: langRust},
	"rustshares": {lang: langRust},
	"rustsvc":    {lang: langCargo},

	"goallocs":   {lang: langGo},
	"gocalls":    {lang: langGo},
	"gocgo":      {lang: langGo, cgo: true},
	"godemo":     {lang: langGo},
	"gohttp":     {lang: langGo},
	"goinline":   {lang: langGo},
	"goroutines": {lang: langGo},
	"goshares":   {lang: langGo},
	"gosoak":     {lang: langGo},

	// without optimisation gcc makes no tail calls
	"tailcalls": {lang: langC, flags: []string{"-O2"}},
}

// Names returns the names of all targets, sorted.
func Names() []string {
	names := make([]string, 0, len(registry))
	for name := range registry {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}
