package symbolizer

import "strings"

// simpleCPPName reads the C++ manglings that make up most of a symbol table
// without a demangler, some fifty times faster: names of plain identifiers
// within namespaces and classes, constructors and destructors included, with no
// templates, operators or ABI tags. ok is false for all others. Parameters, which
// follow, are not looked at.
//
// The grammar is that of the Itanium C++ ABI, section 5.1.
func simpleCPPName(symbol string) (name string, ok bool) {
	rest := symbol[len("_Z"):]
	nested := strings.HasPrefix(rest, "N")
	if nested {
		rest = strings.TrimLeft(rest[1:], "rVK") // cv-qualifiers of the method
	}
	rest = strings.TrimPrefix(rest, "L") // internal linkage
	var out strings.Builder
	last := ""
	if strings.HasPrefix(rest, "St") {
		out.WriteString("std")
		rest = rest[len("St"):]
	}
	for rest != "" {
		switch c := rest[0]; {
		case c >= '1' && c <= '9':
			id, after, ok := sourceName(rest)
			if !ok {
				return "", false
			}
			rest, last = after, id
			if strings.HasPrefix(id, "_GLOBAL__N") {
				id = "(anonymous namespace)"
			}
			if out.Len() > 0 {
				out.WriteString("::")
			}
			out.WriteString(id)
			if !nested {
				return out.String(), isParameter(rest)
			}
		case c == 'E' && last != "":
			return out.String(), isParameter(rest[1:])
		case (c == 'C' || c == 'D') && last != "" && len(rest) > 2 && rest[1] >= '0' && rest[1] <= '5' && rest[2] == 'E':
			out.WriteString("::")
			if c == 'D' {
				out.WriteByte('~')
			}
			out.WriteString(last)
			rest = rest[2:]
		default:
			return "", false
		}
	}
	return "", false
}

// sourceName cuts a length and as many bytes from s.
func sourceName(s string) (id, rest string, ok bool) {
	n, i := 0, 0
	for ; i < len(s) && s[i] >= '0' && s[i] <= '9'; i++ {
		if n = n*10 + int(s[i]-'0'); n > len(s) {
			return "", "", false
		}
	}
	if n == 0 || n > len(s)-i {
		return "", "", false
	}
	return s[i : i+n], s[i+n:], true
}

// isParameter reports whether s can be a function's parameters. What starts
// otherwise is a template, a local name, a clone or no mangled name at all.
func isParameter(s string) bool {
	if s == "" || strings.IndexByte(s, '.') >= 0 {
		return false
	}
	c := s[0]
	return c >= 'a' && c <= 'z' || c >= '1' && c <= '9' || strings.IndexByte("PRKOSNDFAM", c) >= 0
}
