package symbolizer

import (
	"path"
	"strings"
)

// PythonName is the name of a Python function with its module's before it, as
// Python programs call it: "json.decoder.JSONDecoder.decode". The module is told
// by the file: its path below the directory of the standard library or of
// installed packages, its base name elsewhere ("app.main" of /srv/x/app.py).
func PythonName(f Frame) string {
	if f.File == "" {
		return f.Function
	}
	return pythonModuleName(f.File) + "." + f.Function
}

func pythonModuleName(file string) string {
	if inner, ok := strings.CutPrefix(file, "<frozen "); ok {
		return strings.TrimSuffix(inner, ">")
	}
	if strings.HasPrefix(file, "<") { // "<string>", "<stdin>"
		return file
	}
	rest := path.Base(file)
	if rest == "__init__.py" || rest == "__main__.py" {
		rest = path.Join(path.Base(path.Dir(file)), rest)
	}
	parts := strings.Split(file, "/")
	for i := len(parts) - 2; i >= 0; i-- {
		if parts[i] == "site-packages" || parts[i] == "dist-packages" {
			rest = strings.Join(parts[i+1:], "/")
			break
		}
		if _, ok := pythonMinorOfName(parts[i]); ok && i > 0 && strings.HasPrefix(parts[i-1], "lib") {
			rest = strings.Join(parts[i+1:], "/")
			break
		}
	}
	rest = strings.TrimSuffix(rest, path.Ext(rest))
	rest = strings.TrimSuffix(rest, "/__init__")
	return strings.ReplaceAll(rest, "/", ".")
}
