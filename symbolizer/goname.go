package symbolizer

import (
	"strconv"
	"strings"
)

// goABI0Suffix marks the assembly body of a function in symbol tables, where
// the wrapper for Go callers has the plain name.
const goABI0Suffix = ".abi0"

// goName makes a Go linkage name readable: the linker escapes dots in the last
// element of import paths, and quotes and control characters everywhere, as %xx.
func goName(symbol string) string {
	if strings.IndexByte(symbol, '%') < 0 {
		return symbol
	}
	var out strings.Builder
	for i := 0; i < len(symbol); i++ {
		if symbol[i] == '%' && i+2 < len(symbol) {
			if c, err := strconv.ParseUint(symbol[i+1:i+3], 16, 8); err == nil {
				out.WriteByte(byte(c))
				i += 2
				continue
			}
		}
		out.WriteByte(symbol[i])
	}
	return out.String()
}

// goPackage returns the import path of a Go linkage name. It ends at the first
// dot after the last slash, not counting what type arguments contain. Functions
// that the linker makes ("type:.eq.…", "go:…"), methods of unnamed structs and
// assembly without a package have none.
func goPackage(symbol string) string {
	head := symbol
	if i := strings.IndexAny(head, "[("); i >= 0 {
		head = head[:i]
	}
	for _, p := range []string{"type:", "type..", "go:", "struct {", "interface {"} {
		if strings.HasPrefix(head, p) {
			return ""
		}
	}
	slash := strings.LastIndexByte(head, '/') + 1
	if slash == 0 && strings.HasPrefix(head, "go.") {
		return "" // Go 1.19's "go.(*struct {…}).M", where later versions have "go:"
	}
	dot := strings.IndexByte(head[slash:], '.')
	if dot <= 0 {
		return ""
	}
	return goName(head[:slash+dot])
}
