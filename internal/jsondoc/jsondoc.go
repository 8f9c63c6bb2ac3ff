// Package jsondoc holds JSON lines against docs/json.md, which describes them:
// a section per type, with examples and a table of its fields.
package jsondoc

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
)

// Type is one type of line as it is documented.
type Type struct {
	// Always and Sometimes name the fields that every line has, and those
	// that the others have.
	Always, Sometimes []string
	// Examples are the lines shown.
	Examples []map[string]any
}

// Has reports whether a field is documented.
func (d *Type) Has(field string) bool {
	return slices.Contains(d.Always, field) || slices.Contains(d.Sometimes, field)
}

var quoted = regexp.MustCompile("`([a-z0-9_]+)`")

// Read returns the types that the document at path describes, by name. A title
// of one word is that of a type; a table whose first column is "field" names
// fields.
func Read(path string) (map[string]*Type, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	types := map[string]*Type{}
	var d *Type
	fields := false
	for n, line := range strings.Split(string(text), "\n") {
		switch {
		case strings.HasPrefix(line, "## "):
			d = nil
			if name := line[3:]; !strings.Contains(name, " ") {
				d = new(Type)
				types[name] = d
			}
		case d == nil:
		case strings.HasPrefix(line, "{"):
			var o map[string]any
			if err := json.Unmarshal([]byte(line), &o); err != nil {
				return nil, fmt.Errorf("%s:%d: %w", path, n+1, err)
			}
			d.Examples = append(d.Examples, o)
		case strings.HasPrefix(line, "| field |"):
			fields = true
		case !strings.HasPrefix(line, "|"):
			fields = false
		case fields:
			cells := strings.Split(line, "|")
			for _, m := range quoted.FindAllStringSubmatch(cells[1], -1) {
				if strings.TrimSpace(cells[3]) == "always" {
					d.Always = append(d.Always, m[1])
				} else {
					d.Sometimes = append(d.Sometimes, m[1])
				}
			}
		}
	}
	return types, nil
}

// Conforms checks a line against the documentation of its type.
func Conforms(types map[string]*Type, o map[string]any) error {
	name := fmt.Sprint(o["type"])
	d := types[name]
	if d == nil {
		return fmt.Errorf("type %q is not documented", name)
	}
	for field := range o {
		if !d.Has(field) {
			return fmt.Errorf("field %q of %q is not documented", field, name)
		}
	}
	for _, field := range d.Always {
		if _, ok := o[field]; !ok {
			return fmt.Errorf("field %q of %q is missing", field, name)
		}
	}
	return nil
}

// Check holds what is printed against the documentation of the types named: all
// lines conform, each type and field that is documented is printed, and shown in
// an example. It returns what does not hold.
func Check(types map[string]*Type, names []string, lines []byte) []error {
	var errs []error
	printed := map[string]map[string]bool{}
	for line := range strings.Lines(string(lines)) {
		var o map[string]any
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			return append(errs, fmt.Errorf("%w: %s", err, line))
		}
		if err := Conforms(types, o); err != nil {
			errs = append(errs, fmt.Errorf("%w: %s", err, line))
		}
		if !strings.HasPrefix(line, `{"type":"`) {
			errs = append(errs, fmt.Errorf("type does not come first: %s", line))
		}
		name := fmt.Sprint(o["type"])
		if printed[name] == nil {
			printed[name] = map[string]bool{}
		}
		for f := range o {
			printed[name][f] = true
		}
	}
	for _, name := range names {
		d := types[name]
		if d == nil {
			errs = append(errs, fmt.Errorf("type %q is not documented", name))
			continue
		}
		if len(d.Examples) == 0 {
			errs = append(errs, fmt.Errorf("%s has no example", name))
		}
		shown := map[string]bool{}
		for _, o := range d.Examples {
			if err := Conforms(types, o); err != nil {
				errs = append(errs, fmt.Errorf("example of %s: %w", name, err))
			}
			for f := range o {
				shown[f] = true
			}
		}
		for _, f := range append(slices.Clone(d.Sometimes), d.Always...) {
			if !shown[f] {
				errs = append(errs, fmt.Errorf("no example of %s shows %q", name, f))
			}
			if !printed[name][f] {
				errs = append(errs, fmt.Errorf("field %q of %q is documented but was never printed", f, name))
			}
		}
	}
	return errs
}
