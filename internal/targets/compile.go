package targets

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/ulikunitz/xz"
)

// check says whether the target can be built in the variant at all.
func (s target) check(v variant) error {
	impossible := func(yes bool, why string) error {
		if yes {
			return fmt.Errorf("%w: %s", errUnsupported, why)
		}
		return nil
	}
	native := s.lang == langC || s.lang == langCPP
	for _, err := range []error{
		impossible(s.needsGCC != "" && v.compiler == "clang", s.needsGCC),
		impossible(s.dynamic && v.static, "needs shared libraries"),
		impossible(v.compiler == "musl" && s.lang != langC, "musl-gcc compiles C only"),
		impossible(v.compiler == "musl" && s.noMusl != "", s.noMusl),
		impossible(v.compiler != "" && !native, "not a C or C++ program"),
		impossible(v.pie && s.lang != langGo, "position independent by default"),
		impossible(v.noPIE && s.lang == langGo, "not position independent by default"),
		impossible(v.split && s.lang == langGo, "Go keeps its function table"),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

// sources returns the target's directory below src.
func (s target) sources(name string) string {
	if s.main != "" {
		return s.main
	}
	return name
}

// compilerFor finds the toolchain that builds the target in the variant.
func compilerFor(s target, v variant) (compiler, error) {
	switch s.lang {
	case langC:
		switch v.compiler {
		case "clang":
			return findCompiler("--version", "clang-19", "clang")
		case "musl":
			return findCompiler("--version", "musl-gcc")
		}
		return findCompiler("--version", "gcc")
	case langCPP:
		if v.compiler == "clang" {
			return findCompiler("--version", "clang++-19", "clang++")
		}
		return findCompiler("--version", "g++")
	case langRust:
		return findCompiler("--version", "rustc")
	case langCargo:
		return findCompiler("--version", "cargo")
	}
	return findCompiler("version", "go")
}

// compile builds the target into the directory out, which then holds the
// program under the target's name and everything it needs beside itself.
func compile(root, name string, s target, v variant, tool compiler, out string) error {
	src := filepath.Join(root, s.sources(name))
	binary := filepath.Join(out, name)
	var err error
	switch s.lang {
	case langC, langCPP:
		err = compileNative(root, src, name, s, v, tool, out)
	case langRust:
		err = compileRust(src, name, s, v, tool, binary)
	case langCargo:
		err = compileCargo(src, name, s, v, tool, binary)
	case langGo:
		return compileGo(src, s, v, tool, binary)
	}
	if err != nil {
		return err
	}
	return separateSymbols(binary, v)
}

// compileNative compiles C and C++: the shared libraries first, then every
// other source file of the directory into the program.
func compileNative(root, src, name string, s target, v variant, tool compiler, out string) error {
	extension, standard := ".c", "-std=gnu11"
	if s.lang == langCPP {
		extension, standard = ".cc", "-std=gnu++17"
	}
	level := v.opt
	if level == "" {
		level = "2"
	}
	common := []string{standard, "-g", "-O" + level, "-Wall", "-Wextra", "-I" + filepath.Join(root, "include"), "-pthread"}
	common = append(common, v.flags...)
	common = append(common, s.flags...) // last: what the target cannot do without

	ofLibrary := map[string]bool{}
	var link []string
	for _, lib := range s.libs {
		ofLibrary[lib.source] = true
		args := append([]string{"-shared", "-fPIC", "-Wl,-soname," + lib.file, "-o", filepath.Join(out, lib.file)}, common...)
		if err := runTool(tool.path, src, nil, append(append(args, lib.flags...), lib.source)...); err != nil {
			return err
		}
		if lib.linked {
			link = append(link, filepath.Join(out, lib.file))
		}
	}
	var sources []string
	for _, pattern := range []string{"*" + extension, "*.S"} {
		found, err := filepath.Glob(filepath.Join(src, pattern))
		if err != nil {
			return err
		}
		sources = append(sources, found...)
	}
	args := append([]string{"-o", filepath.Join(out, name)}, common...)
	switch {
	case v.noPIE && v.static:
		args = append(args, "-no-pie", "-fno-pie", "-static")
	case v.noPIE:
		args = append(args, "-no-pie", "-fno-pie")
	case v.static && v.compiler == "musl": // its gcc specs know no static PIE
		args = append(args, "-static")
	case v.static:
		args = append(args, "-static-pie", "-fPIE")
	default:
		args = append(args, "-pie", "-fPIE")
	}
	for _, source := range sources {
		if !ofLibrary[filepath.Base(source)] {
			args = append(args, filepath.Base(source))
		}
	}
	if len(s.libs) > 0 { // libraries count into the program's table
		args = append(args, "-rdynamic", "-Wl,-rpath,$ORIGIN", "-ldl")
	}
	return runTool(tool.path, src, nil, append(args, link...)...)
}

// compileGo builds a Go target, without cgo where it can do without, so that it is
// static.
func compileGo(src string, s target, v variant, tool compiler, binary string) error {
	// the state of the repository would end up in the binary otherwise
	args := []string{"build", "-buildvcs=false", "-o", binary}
	if v.pie {
		args = append(args, "-buildmode=pie")
	}
	if v.opt == "0" {
		args = append(args, "-gcflags=all=-N -l")
	}
	if v.strip {
		args = append(args, "-ldflags=-s -w")
	}
	args = append(args, s.flags...)
	args = append(args, v.flags...)
	cgo := "CGO_ENABLED=0"
	if s.cgo {
		cgo = "CGO_ENABLED=1"
	}
	return runTool(tool.path, src, []string{cgo, "GOFLAGS="}, append(args, ".")...)
}

// compileRust builds the single file <name>.rs.
func compileRust(src, name string, s target, v variant, tool compiler, binary string) error {
	args := append([]string{"--edition", "2021", "-o", binary, name + ".rs"}, rustFlags(v)...)
	args = append(args, s.flags...)
	return runTool(tool.path, src, nil, append(args, v.flags...)...)
}

// compileCargo builds a cargo project without dependencies.
func compileCargo(src, name string, s target, v variant, tool compiler, binary string) error {
	work, err := os.MkdirTemp(filepath.Dir(binary), "cargo-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	flags := append(rustFlags(v), s.flags...)
	env := []string{"CARGO_TARGET_DIR=" + work, "CARGO_ENCODED_RUSTFLAGS=" + strings.Join(append(flags, v.flags...), "\x1f")}
	if err := runTool(tool.path, src, env, "build", "--release", "--offline", "--locked", "--quiet"); err != nil {
		return err
	}
	return os.Rename(filepath.Join(work, "release", name), binary)
}

func rustFlags(v variant) []string {
	level := v.opt
	if level == "" {
		level = "2"
	}
	flags := []string{"-g", "-Copt-level=" + level}
	if v.static {
		flags = append(flags, "-Ctarget-feature=+crt-static")
	}
	if v.noPIE {
		flags = append(flags, "-Crelocation-model=static")
	}
	return flags
}

// separateSymbols applies Strip, SplitDebug and MiniDebug to a finished binary.
func separateSymbols(binary string, v variant) error {
	if !v.strip && !v.split && !v.mini {
		return nil
	}
	dir, name := filepath.Split(binary)
	strip, err := findCompiler("--version", "strip")
	if err != nil {
		return err
	}
	objcopy, err := findCompiler("--version", "objcopy")
	if err != nil {
		return err
	}
	debug := name + ".debug"
	if v.split || v.mini {
		if err := runTool(objcopy.path, dir, nil, "--only-keep-debug", name, debug); err != nil {
			return err
		}
	}
	if err := runTool(strip.path, dir, nil, "--strip-all", name); err != nil {
		return err
	}
	if v.split {
		return runTool(objcopy.path, dir, nil, "--add-gnu-debuglink="+debug, name)
	}
	if v.mini {
		return addMiniDebug(objcopy.path, strip.path, dir, name, debug)
	}
	return nil
}

// addMiniDebug puts the symbol table of the file debug, xz-compressed, into the
// program's section .gnu_debugdata and removes debug.
func addMiniDebug(objcopy, strip, dir, name, debug string) error {
	if err := runTool(strip, dir, nil, "--strip-debug", debug); err != nil {
		return err
	}
	symbols, err := os.ReadFile(filepath.Join(dir, debug))
	if err != nil {
		return err
	}
	var packed bytes.Buffer
	writer, err := xz.NewWriter(&packed)
	if err != nil {
		return err
	}
	if _, err := writer.Write(symbols); err != nil {
		return err
	}
	if err := writer.Close(); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, debug), packed.Bytes(), 0o644); err != nil {
		return err
	}
	defer os.Remove(filepath.Join(dir, debug))
	return runTool(objcopy, dir, nil, "--add-section", ".gnu_debugdata="+debug, name)
}

// runTool runs one command in dir; its error carries what the tool said.
func runTool(path, dir string, env []string, args ...string) error {
	cmd := exec.Command(path, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	output, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w\n%s", filepath.Base(path), strings.Join(args, " "), err, output)
	}
	return nil
}
