package exporter

import (
	"path"
	"regexp"
	"strings"
)

// languages are the endings of source files and the languages they tell.
var languages = map[string]string{
	".go": "go", ".s": "assembly", ".S": "assembly", ".asm": "assembly", ".c": "c", ".h": "c",
	".cc": "c++", ".cpp": "c++", ".cxx": "c++", ".C": "c++", ".hh": "c++", ".hpp": "c++", ".hxx": "c++", ".tcc": "c++",
	".rs": "rust", ".py": "python", ".erl": "erlang", ".hrl": "erlang", ".ex": "elixir", ".exs": "elixir",
	".js": "javascript", ".mjs": "javascript", ".cjs": "javascript", ".ts": "javascript", ".java": "java",
	".kt": "java", ".scala": "java", ".rb": "ruby", ".php": "php", ".zig": "zig", ".d": "d", ".swift": "swift",
}

var (
	rustHash   = regexp.MustCompile(`17h[0-9a-f]{16}E`)
	erlangName = regexp.MustCompile(`^'?[\w.$-]+'?:'?[^/:]+'?/\d+$`)
	goName     = regexp.MustCompile(`^([\w.~-]+/)*[\w~-]+\.[(\w].*$`)
	rustImpl   = regexp.MustCompile(`^<(.+) as .+>(::[^>]*)$`)
	jsPrefix   = regexp.MustCompile(`^(JS:|LazyCompile:|Function:|Eval:|Script:|Builtin:)`)
)

// language tells what a frame is written in: by its module, its source file,
// its mangled name, or the shape of its name, the surer first. It is empty when
// nothing tells.
func language(f *Frame, mangled string) string {
	if f.Module == kernelModule {
		return "kernel"
	}
	if lang := languages[path.Ext(f.File)]; lang != "" {
		// A header of C may be one of C++.
		if lang == "c" && (strings.Contains(f.Name, "::") || strings.HasPrefix(mangled, "_Z")) {
			return "c++"
		}
		if lang == "assembly" && (strings.HasPrefix(f.Name, "runtime.") || strings.Contains(f.File, "/src/") && goName.MatchString(f.Name)) {
			return "go"
		}
		return lang
	}
	switch {
	case strings.HasPrefix(mangled, "_R") || rustHash.MatchString(mangled):
		return "rust"
	case strings.HasPrefix(mangled, "_Z"):
		return "c++"
	case erlangName.MatchString(f.Name):
		return "erlang"
	case jsPrefix.MatchString(f.Name):
		return "javascript"
	case strings.HasPrefix(f.Name, "py::"):
		return "python"
	case strings.HasPrefix(f.Name, "core::") || strings.HasPrefix(f.Name, "alloc::") || strings.HasPrefix(f.Name, "<") && strings.Contains(f.Name, " as "):
		return "rust"
	case strings.Contains(f.Name, "::"):
		return "c++"
	case strings.HasPrefix(f.Name, "runtime.") || strings.HasPrefix(f.Name, "main.") ||
		strings.Contains(f.Name, "/") && goName.MatchString(f.Name) || strings.Contains(f.Name, ".(*"):
		return "go"
	}
	return ""
}

// namespace returns what a frame's name is below: Go's package, the outermost
// namespaces of C++ and Rust, Erlang's module. Empty where there is none.
func namespace(f *Frame) string {
	name := f.Name
	// What comes after these is parameters.
	if i := strings.IndexAny(name, "<("); i > 0 && f.Lang != "go" {
		name = name[:i]
	}
	switch f.Lang {
	case "go":
		slash := strings.LastIndexByte(beforeAny(name, "([{"), '/') + 1
		if dot := strings.IndexByte(name[slash:], '.'); dot > 0 {
			return name[:slash+dot]
		}
	case "c++", "rust":
		if i := strings.Index(name, "::"); i > 0 {
			return name[:i]
		}
	case "erlang", "elixir":
		if i := strings.LastIndexByte(name, ':'); i > 0 {
			return name[:i]
		}
	case "python", "javascript", "ruby", "php":
		if f.File != "" {
			return path.Base(f.File)
		}
	}
	return ""
}

// beforeAny returns s up to the first of chars.
func beforeAny(s, chars string) string {
	if i := strings.IndexAny(s, chars); i >= 0 {
		return s[:i]
	}
	return s
}

// shortName leaves out what can be spared of a name where there is little room:
// the directories of a Go package, parameters and template arguments.
func shortName(name, lang string) string {
	switch lang {
	case "go":
		return name[strings.LastIndexByte(beforeAny(name, "([{"), '/')+1:]
	case "c++", "rust":
		if m := rustImpl.FindStringSubmatch(name); m != nil && lang == "rust" {
			return m[1] + m[2]
		}
		var out strings.Builder
		level := 0
		for _, r := range name {
			switch {
			case r == '<':
				level++
			case r == '>':
				level = max(level-1, 0)
			case level > 0:
			case r == '(' && out.Len() > 0:
				return out.String()
			default:
				out.WriteRune(r)
			}
		}
		if short := strings.TrimSpace(out.String()); short != "" {
			return short
		}
	}
	return name
}
