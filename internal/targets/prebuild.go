package targets

import (
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// manifestName is the file in a prebuilt directory that lists its programs.
const manifestName = "manifest.json"

// Prebuilt is one program of a directory that [Prebuild] filled.
type Prebuilt struct {
	Name    string   `json:"name"`    // the target
	Variant string   `json:"variant"` // how it was built, "default" or e.g. "O0-static"
	Path    string   `json:"path"`    // relative to the directory
	Files   []string `json:"files"`   // everything that belongs to it, relative to the directory
	Libs    []string `json:"libs"`    // absolute paths of system libraries and the dynamic loader it needs, none if static
}

// prebuiltVariants returns what a machine without compilers should have of the
// target: few enough that a test machine's memory holds all of them.
func (s target) prebuiltVariants() [][]Option {
	if s.cgo {
		return [][]Option{{}}
	}
	if s.lang == langGo {
		return [][]Option{{}, {Strip()}, {OptLevel("0")}, {PIE()}}
	}
	return [][]Option{{}, {OptLevel("0")}}
}

// Prebuild builds the named targets, or all if none is named, into dir, as
// dir/<variant>/<name>, and writes dir/manifest.json. Set SBXTRACE_TARGETS to a
// copy of the directory and Build takes the programs from there. Targets whose
// toolchain is missing are left out and named in an error that comes with the
// list of the others: the directory is usable then. After any other error the
// list is nil.
func Prebuild(dir string, names ...string) ([]Prebuilt, error) {
	var manifest []Prebuilt
	var missing []error
	if len(names) == 0 {
		names = Names()
	}
	for _, name := range names {
		for _, options := range registry[name].prebuiltVariants() {
			v := newVariant(options)
			var entry Prebuilt
			path, err := cached(name, v)
			if err == nil {
				entry, err = install(dir, name, v, path)
			}
			if errors.Is(err, errNoCompiler) {
				missing = append(missing, fmt.Errorf("%s (%s): %w", name, v, err))
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("%s (%s): %w", name, v, err)
			}
			manifest = append(manifest, entry)
		}
	}
	text, err := json.MarshalIndent(manifest, "", "\t")
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, manifestName), append(text, '\n'), 0o644); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	return manifest, errors.Join(missing...)
}

// install copies one build into the directory.
func install(dir, name string, v variant, path string) (Prebuilt, error) {
	entry := Prebuilt{Name: name, Variant: v.String(), Path: filepath.Join(v.String(), name)}
	if err := os.MkdirAll(filepath.Join(dir, entry.Variant), 0o755); err != nil {
		return entry, err
	}
	files, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return entry, err
	}
	for _, file := range files {
		content, err := os.ReadFile(filepath.Join(filepath.Dir(path), file.Name()))
		if err != nil {
			return entry, err
		}
		relative := filepath.Join(entry.Variant, file.Name())
		// a new file: writing into a program that runs would fail
		os.Remove(filepath.Join(dir, relative))
		if err := os.WriteFile(filepath.Join(dir, relative), content, 0o755); err != nil {
			return entry, err
		}
		entry.Files = append(entry.Files, relative)
	}
	entry.Libs, err = systemLibraries(path)
	return entry, err
}

// systemLibraries returns the shared libraries outside of the program's own
// directory that it is linked to, with the dynamic loader.
func systemLibraries(path string) ([]string, error) {
	static, err := isStatic(path)
	if static || err != nil {
		return nil, err
	}
	ldd, err := exec.LookPath("ldd")
	if err != nil {
		return nil, fmt.Errorf("%w: ldd not found", errNoCompiler)
	}
	output, err := exec.Command(ldd, path).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("ldd %s: %w\n%s", path, err, output)
	}
	var libs []string
	for _, word := range strings.Fields(string(output)) {
		if filepath.IsAbs(word) && filepath.Dir(word) != filepath.Dir(path) {
			libs = append(libs, word)
		}
	}
	return libs, nil
}

// isStatic says whether a program runs without a dynamic loader.
func isStatic(path string) (bool, error) {
	file, err := elf.Open(path)
	if err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	defer file.Close()
	for _, segment := range file.Progs {
		if segment.Type == elf.PT_INTERP {
			return false, nil
		}
	}
	return true, nil
}

// prebuilt finds a target in a directory that Prebuild filled.
func prebuilt(dir, name string, v variant) (string, error) {
	text, err := os.ReadFile(filepath.Join(dir, manifestName))
	if err != nil {
		return "", fmt.Errorf("prebuilt targets: %w", err)
	}
	var manifest []Prebuilt
	if err := json.Unmarshal(text, &manifest); err != nil {
		return "", fmt.Errorf("prebuilt targets: %s: %w", manifestName, err)
	}
	for _, entry := range manifest {
		if entry.Name == name && entry.Variant == v.String() {
			return filepath.Join(dir, entry.Path), nil
		}
	}
	return "", fmt.Errorf("variant %s is not among the prebuilt ones in %s", v, dir)
}
