package main

import (
	"slices"

	"github.com/sbxtrace/sbxtrace/trace"
	"github.com/sbxtrace/sbxtrace/tracer"
	"github.com/sbxtrace/sbxtrace/uprobes"
)

// pythonRows puts the rows of Python functions right. Sums of the kernel have
// only the static probes that stand for all of them: the functions themselves
// are in counted. And when those probes were taken out, the functions' numbers
// are lower bounds.
func pythonRows(rows, counted []trace.Row, fns trace.Functions) []trace.Row {
	python := func(r trace.Row) bool { return fns.Func(r.Func).Lang == uprobes.CPythonFunctions.Lang }
	stands := func(r trace.Row) bool {
		f := fns.Func(r.Func)
		return f.Lang == trace.LangStatic && tracer.StandsForPython(f.Name)
	}
	if !slices.ContainsFunc(rows, stands) {
		return rows
	}
	gone := slices.ContainsFunc(rows, func(r trace.Row) bool { return stands(r) && r.AtLeast })
	rows = slices.DeleteFunc(rows, stands)
	if !slices.ContainsFunc(rows, python) {
		for _, r := range counted {
			if python(r) {
				rows = append(rows, r)
			}
		}
	}
	for i := range rows {
		rows[i].AtLeast = rows[i].AtLeast || gone && python(rows[i])
	}
	return rows
}
