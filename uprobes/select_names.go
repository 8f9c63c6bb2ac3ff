package uprobes

import (
	"strings"

	"github.com/ianlancetaylor/demangle"

	"github.com/sbxtrace/sbxtrace/symbolizer"
)

// appendNameForms appends the spellings under which patterns find fn, the
// likeliest first:
//
//   - the name as printed (demangled);
//   - C++ and Rust: the name without parameters and return type, then without
//     template or generic arguments too ("ns::Map<int>::get", "ns::Map::get");
//     Rust's "<T as Trait>::f" also as "T::f";
//   - C++, if signatures is set: the name with parameters, with and without the
//     return type. The printed name has parameters only where they tell
//     overloads apart, and finding them costs microseconds, so this is for
//     patterns that have a '(' themselves;
//   - Go: the name without type arguments (main.Map[...] as main.Map);
//   - the linkage symbol and every alias, each also without symbol version
//     (memcpy@@GLIBC_2.14) and without the suffix of a compiler's clone
//     (f.constprop.0, f.isra.0, f.part.0, f.lto_priv.0, f.llvm.123). The cold
//     part of a split function (f.cold) is no function of its own and keeps its
//     suffix.
func appendNameForms(forms []string, fn *symbolizer.Function, signatures bool) []string {
	forms = append(forms, fn.Name)
	switch {
	case fn.Lang == symbolizer.LangGo:
		if strings.IndexByte(fn.Name, '[') > 0 {
			forms = append(forms, dropGoTypeArgs(fn.Name))
		}
	case isMangled(fn.Symbol) && fn.Name != fn.Symbol:
		forms = appendDemangledForms(forms, fn.Name)
		if signatures {
			forms = appendSignatures(forms, fn)
		}
	}
	forms = appendSymbolForms(forms, fn.Symbol, fn.Name)
	for _, alias := range fn.Aliases {
		forms = appendSymbolForms(forms, alias, fn.Name)
	}
	return forms
}

// isMangled reports whether a linkage name follows the Itanium C++ ABI (Rust's
// legacy scheme is a form of it) or Rust's v0 scheme.
func isMangled(symbol string) bool {
	return strings.HasPrefix(symbol, "_Z") || strings.HasPrefix(symbol, "_R")
}

func appendSymbolForms(forms []string, symbol, name string) []string {
	if symbol == "" {
		return forms
	}
	if symbol != name {
		forms = append(forms, symbol)
	}
	if short := dropCloneSuffix(symbol); short != symbol {
		forms = append(forms, short)
	}
	return forms
}

// cloneSuffixes are what gcc and clang append to the symbols of specialised or
// promoted copies of a function that still is called like one.
var cloneSuffixes = []string{".constprop.", ".isra.", ".part.", ".lto_priv.", ".llvm."}

func dropCloneSuffix(symbol string) string {
	if i := strings.IndexByte(symbol, '@'); i > 0 {
		symbol = symbol[:i]
	}
	dot := strings.IndexByte(symbol, '.')
	if dot <= 0 || isColdPart(symbol) {
		return symbol
	}
	for _, suffix := range cloneSuffixes {
		if i := strings.Index(symbol, suffix); i > 0 {
			symbol = symbol[:i]
		}
	}
	return symbol
}

// isColdPart reports whether a symbol or demangled name is the out-of-line cold
// part that the compiler split off a function: it is jumped to, never called.
func isColdPart(name string) bool {
	i := strings.Index(name, ".cold")
	if i <= 0 {
		return false
	}
	rest := name[i+len(".cold"):]
	return rest == "" || rest[0] == '.' || rest[0] == ']'
}

// dropGoTypeArgs removes bracketed type arguments from a Go name.
func dropGoTypeArgs(name string) string {
	var out strings.Builder
	out.Grow(len(name))
	depth := 0
	for i := 0; i < len(name); i++ {
		switch c := name[i]; {
		case c == '[':
			depth++
		case c == ']' && depth > 0:
			depth--
		case depth == 0:
			out.WriteByte(c)
		}
	}
	return out.String()
}

// specialNames begin the demangled names of things that are not the function
// they mention: a thunk is an entry stub of it, and counting both would count
// a call twice.
var specialNames = []string{
	"non-virtual thunk to ", "virtual thunk to ", "covariant return thunk to ",
	"TLS wrapper function for ", "TLS init function for ",
	"guard variable for ", "reference temporary ", "transaction clone for ",
}

func hasSpecialName(name string) bool {
	for _, prefix := range specialNames {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// appendDemangledForms appends the shorter spellings of a demangled C++ or
// Rust name.
func appendDemangledForms(forms []string, name string) []string {
	if hasSpecialName(name) {
		return forms
	}
	qualified := dropCloneSuffix(dropSignature(name))
	if qualified == "" {
		return forms
	}
	if qualified != name {
		forms = append(forms, qualified)
	}
	if strings.IndexByte(qualified, '<') < 0 {
		return forms
	}
	if self, ok := rustSelfForm(qualified); ok {
		forms = append(forms, self)
		qualified = self
	}
	if bare := dropTemplateArgs(qualified); bare != qualified && bare != "" {
		forms = append(forms, bare)
	}
	return forms
}

// appendSignatures appends a C++ name with its parameters.
func appendSignatures(forms []string, fn *symbolizer.Function) []string {
	full := fn.Name
	if start, end := nameInSignature(full); end == len(full) {
		if full = demangleFull(fn.Symbol); full == fn.Name || full == "" {
			return forms
		}
		forms = append(forms, full)
		if start, _ = nameInSignature(full); start > 0 {
			forms = append(forms, full[start:])
		}
	} else if start > 0 {
		forms = append(forms, full[start:])
	}
	return forms
}

// maxDemangled bounds a demangled name to 2^14 bytes: by back references a
// short symbol can expand exponentially.
const maxDemangled = 14

// demangleFull demangles with parameters; it returns "" for what it does not
// understand.
func demangleFull(symbol string) (name string) {
	defer func() {
		if recover() != nil { // a symbol that the demangler has not been made for
			name = ""
		}
	}()
	name, err := demangle.ToString(symbol, demangle.MaxLength(maxDemangled))
	if err != nil {
		return ""
	}
	return name
}

// dropSignature returns a demangled name without return type, parameters,
// qualifiers and clone notes: "void a::f<int>(int) const [clone .isra.0]"
// gives "a::f<int>". The result is a substring of name.
func dropSignature(name string) string {
	start, end := nameInSignature(name)
	return strings.TrimRight(name[start:end], " ")
}

// nameInSignature returns where the qualified name begins and ends in a
// demangled name.
func nameInSignature(name string) (start, end int) {
	if i := strings.Index(name, " [clone "); i > 0 {
		name = name[:i]
	}
	var (
		angle, group int // depth inside <>, and inside (), {} and []
		space        = -1
		groupStart   int // of the current top-level group
		groupSpace   int // the last top-level space before it
	)
	end = len(name)
	for i := 0; i < len(name); i++ {
		switch name[i] {
		case '<':
			angle++
		case '>':
			// "->" is an operator of a decltype or a Rust fn type, no bracket.
			if angle > 0 && name[i-1] != '-' {
				angle--
			}
		case '(', '{', '[':
			if group == 0 {
				groupStart, groupSpace = i, space
			}
			group++
		case ')', '}', ']':
			if group == 0 {
				break // unbalanced: no name of a compiler
			}
			group--
			// Parameters are the last top-level group that no "::" follows; an
			// earlier one belongs to an enclosing function or is a name itself,
			// as in (anonymous namespace)::f.
			if group == 0 && angle == 0 && name[i] == ')' && !strings.HasPrefix(name[i+1:], "::") {
				start, end = groupSpace+1, groupStart
			}
		case ' ':
			// The last space before the parameters ends the return type, unless
			// it only sets off the "const" of an enclosing function.
			if group == 0 && angle == 0 && !strings.HasPrefix(name[i:], " const::") {
				space = i
			}
		case 'o':
			if group == 0 && angle == 0 && operatorAt(name, i) {
				i = skipOperator(name, i) - 1
			}
		}
	}
	return start, end
}

// operatorAt reports whether the C++ keyword "operator" begins at i.
func operatorAt(name string, i int) bool {
	const kw = "operator"
	return strings.HasPrefix(name[i:], kw) &&
		(i == 0 || !isIdentByte(name[i-1])) &&
		(i+len(kw) < len(name) && !isIdentByte(name[i+len(kw)]))
}

func isIdentByte(c byte) bool { return c == '_' || c == '$' || c >= 0x80 || isAlnum(c) }

// skipOperator returns the position after the operator's own name, which may
// hold brackets and spaces: operator(), operator<<, operator new[],
// operator std::vector<int>.
func skipOperator(name string, i int) int {
	i += len("operator")
	if strings.HasPrefix(name[i:], "()") || strings.HasPrefix(name[i:], "[]") {
		return i + 2
	}
	if name[i] != ' ' {
		for i < len(name) && strings.IndexByte("+-*/%^&|~!=<>,", name[i]) >= 0 {
			i++
		}
		// A template operator is printed as "operator< <int>".
		if i+1 < len(name) && name[i] == ' ' && name[i+1] == '<' {
			i++
		}
		return i
	}
	if strings.HasPrefix(name[i:], " new[]") {
		return i + len(" new[]")
	}
	if strings.HasPrefix(name[i:], " delete[]") {
		return i + len(" delete[]")
	}
	// " new", " delete", a literal suffix (operator"" _s) or a conversion's
	// type, which runs to the parameters.
	angle := 0
	for ; i < len(name); i++ {
		switch name[i] {
		case '<':
			angle++
		case '>':
			angle--
		case '(':
			if angle <= 0 {
				return i
			}
		}
	}
	return i
}

// dropTemplateArgs removes the argument lists "<…>" that follow an identifier
// or "::" (Rust's turbofish, with its "::"). A '<' that begins a name or
// belongs to an operator stays.
func dropTemplateArgs(name string) string {
	var out strings.Builder
	out.Grow(len(name))
	for i := 0; i < len(name); {
		c := name[i]
		switch {
		case c == 'o' && operatorAt(name, i):
			end := skipOperator(name, i)
			out.WriteString(strings.TrimRight(name[i:end], " "))
			i = end
			if i < len(name) && name[i] == '<' {
				i = closeAngle(name, i)
			}
		case c == '<' && i > 0 && isIdentByte(name[i-1]):
			i = closeAngle(name, i)
		case strings.HasPrefix(name[i:], "::<"):
			i = closeAngle(name, i+2)
		default:
			out.WriteByte(c)
			i++
		}
	}
	return out.String()
}

// closeAngle returns the position after the '>' that closes the '<' at i, or
// the end of name.
func closeAngle(name string, i int) int {
	depth := 0
	for ; i < len(name); i++ {
		switch name[i] {
		case '<':
			depth++
		case '>':
			if name[i-1] == '-' {
				continue
			}
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return i
}

// rustSelfForm turns "<a::T as b::Trait>::f" and "<a::T>::f" into "a::T::f".
func rustSelfForm(name string) (string, bool) {
	if name[0] != '<' {
		return "", false
	}
	end := closeAngle(name, 0)
	if !strings.HasPrefix(name[end:], "::") {
		return "", false
	}
	self := name[1 : end-1]
	depth := 0
	for i := 0; i < len(self); i++ {
		switch self[i] {
		case '<', '(', '[':
			depth++
		case '>', ')', ']':
			if self[i] != '>' || i == 0 || self[i-1] != '-' {
				depth--
			}
		case ' ':
			if depth == 0 && strings.HasPrefix(self[i:], " as ") {
				return self[:i] + name[end:], true
			}
		}
	}
	return self + name[end:], true
}
