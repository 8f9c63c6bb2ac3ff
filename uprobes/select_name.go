package uprobes

import "github.com/sbxtrace/sbxtrace/symbolizer"

// CompileName compiles one glob over names of functions as they are printed.
// Errors are those of Selector.Compile.
func CompileName(pattern string) (func(name string) bool, error) {
	m, err := Selector{Funcs: []string{pattern}}.Compile()
	if err != nil {
		return nil, err
	}
	return func(name string) bool {
		return m.Match(&symbolizer.Function{Name: name}, "", nil)
	}, nil
}
