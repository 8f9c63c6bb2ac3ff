package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// image is a kernel ready to boot.
type image struct {
	path    string // of the vmlinuz
	release string // what uname -r will say
}

// errNoArchive means that apt on this machine knows no Debian archive.
var errNoArchive = errors.New("no Debian archive among apt's sources")

// cachedImage is the kernel that an earlier run unpacked into dir, if any.
func cachedImage(dir string) (image, bool) {
	found, err := filepath.Glob(filepath.Join(dir, "vmlinuz-*"))
	if err != nil || len(found) != 1 {
		return image{}, false
	}
	return image{found[0], strings.TrimPrefix(filepath.Base(found[0]), "vmlinuz-")}, true
}

// fetchKernel downloads the kernel's package with apt and unpacks its image into
// dir, replacing what is there. Apt works in a root of its own, aptRoot, where
// the wanted suites are the only sources: the machine's configuration and
// package lists stay as they are, and no privileges are needed.
func fetchKernel(ctx context.Context, k kernel, aptRoot, dir string) (image, error) {
	aptRoot, err := filepath.Abs(aptRoot)
	if err != nil {
		return image{}, fmt.Errorf("find apt's root: %w", err)
	}
	mirrors, err := debianMirrors(ctx)
	if err != nil {
		return image{}, err
	}
	var tried []error
	for _, suite := range k.Suites {
		a := &apt{root: filepath.Join(aptRoot, suite)}
		pkg, version, err := a.newest(ctx, mirrors, suite, k.pattern)
		if err != nil {
			tried = append(tried, err)
			continue
		}
		deb, err := a.download(ctx, pkg, version)
		if err != nil {
			return image{}, err
		}
		defer os.Remove(deb)
		return unpackImage(ctx, deb, dir)
	}
	return image{}, fmt.Errorf("kernel %s: %w", k.Name, errors.Join(tried...))
}

// mirrors are the addresses at which this machine's apt finds Debian.
type mirrors struct {
	main, security string
}

func (m mirrors) of(suite string) string {
	if strings.HasSuffix(suite, "-security") {
		return m.security
	}
	return m.main
}

var debianSuite = regexp.MustCompile(`^(bullseye|bookworm|trixie|forky)(-security)?$`)

// debianMirrors takes the addresses from apt's own sources.
func debianMirrors(ctx context.Context) (mirrors, error) {
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets",
		"--format", "$(CREATED_BY) $(RELEASE) $(COMPONENT) $(REPO_URI)").Output()
	if err != nil {
		return mirrors{}, fmt.Errorf("ask apt for its sources: %w", commandError(err))
	}
	return parseMirrors(out)
}

func parseMirrors(indexTargets []byte) (mirrors, error) {
	var m mirrors
	lines := bufio.NewScanner(bytes.NewReader(indexTargets))
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) != 4 || f[0] != "Packages" || f[2] != "main" {
			continue
		}
		switch suite := debianSuite.FindStringSubmatch(f[1]); {
		case suite == nil:
		case suite[2] == "" && m.main == "":
			m.main = f[3]
		case suite[2] != "" && m.security == "":
			m.security = f[3]
		}
	}
	if m.main == "" {
		return mirrors{}, errNoArchive
	}
	if m.security == "" {
		// The security archive's kernels reach the main one with each point
		// release, so a mirror of that alone will do.
		m.security = strings.TrimSuffix(m.main, "/") + "-security/"
	}
	return m, nil
}

// apt is an apt with a root directory of its own.
type apt struct {
	root string
}

const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// newest downloads the package lists of a suite and returns the newest package
// whose name matches, and its version.
func (a *apt) newest(ctx context.Context, m mirrors, suite string, name *regexp.Regexp) (pkg, version string, err error) {
	if err := a.configure(m, suite); err != nil {
		return "", "", err
	}
	update, err := a.run(ctx, "apt-get", "update")
	if err != nil {
		return "", "", fmt.Errorf("update lists of %s: %w", suite, err)
	}
	names, err := a.run(ctx, "apt-cache", "pkgnames", "linux-image-")
	if err != nil {
		return "", "", fmt.Errorf("list packages of %s: %w", suite, err)
	}
	for _, n := range strings.Fields(string(names)) {
		if !name.MatchString(n) {
			continue
		}
		out, err := a.run(ctx, "apt-cache", "madison", n)
		if err != nil {
			return "", "", fmt.Errorf("list versions of %s: %w", n, err)
		}
		for v := range madisonVersions(out) {
			if version == "" || exec.CommandContext(ctx, "dpkg", "--compare-versions", v, "gt", version).Run() == nil {
				pkg, version = n, v
			}
		}
	}
	if pkg == "" {
		return "", "", fmt.Errorf("no package %s in %s; apt said: %s", name, suite, lastLine(update))
	}
	return pkg, version, nil
}

// madisonVersions yields the versions in lines of "package | version | source".
func madisonVersions(out []byte) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for line := range strings.Lines(string(out)) {
			if f := strings.Split(line, "|"); len(f) == 3 && !yield(strings.TrimSpace(f[1])) {
				return
			}
		}
	}
}

// configure writes the configuration of this apt.
func (a *apt) configure(m mirrors, suite string) error {
	for _, d := range []string{"lists/partial", "cache/archives/partial", "sources.d", "debs"} {
		if err := os.MkdirAll(filepath.Join(a.root, d), 0o755); err != nil {
			return fmt.Errorf("make apt's root: %w", err)
		}
	}
	source := fmt.Sprintf("Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nArchitectures: amd64\n", m.of(suite), suite)
	if _, err := os.Stat(keyring); err == nil {
		source += "Signed-By: " + keyring + "\n"
	}
	conf := strings.NewReplacer("ROOT", a.root).Replace(`
Dir::State::Lists "ROOT/lists";
Dir::Cache "ROOT/cache";
Dir::Etc::SourceList "/dev/null";
Dir::Etc::SourceParts "ROOT/sources.d";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
Debug::NoLocking "true";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
`)
	for name, text := range map[string]string{"sources.d/debian.sources": source, "apt.conf": conf} {
		if err := os.WriteFile(filepath.Join(a.root, name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("configure apt: %w", err)
		}
	}
	return nil
}

func (a *apt) run(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, append([]string{"-c", filepath.Join(a.root, "apt.conf")}, args...)...)
	cmd.Dir = filepath.Join(a.root, "debs")
	out, err := cmd.Output()
	return out, commandError(err)
}

// download fetches a package and returns the file's path.
func (a *apt) download(ctx context.Context, pkg, version string) (string, error) {
	debs := filepath.Join(a.root, "debs")
	if err := os.RemoveAll(debs); err != nil {
		return "", fmt.Errorf("clear downloads: %w", err)
	}
	if err := os.Mkdir(debs, 0o755); err != nil {
		return "", fmt.Errorf("make directory for downloads: %w", err)
	}
	if _, err := a.run(ctx, "apt-get", "download", pkg+"="+version); err != nil {
		return "", fmt.Errorf("download %s %s: %w", pkg, version, err)
	}
	found, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("download %s %s: %d files, want one", pkg, version, len(found))
	}
	return found[0], nil
}

// unpackImage takes the kernel image out of a package. The modules stay in it:
// the test machines use none.
func unpackImage(ctx context.Context, deb, dir string) (image, error) {
	if err := os.RemoveAll(dir); err != nil {
		return image{}, fmt.Errorf("clear kernel directory: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return image{}, fmt.Errorf("make kernel directory: %w", err)
	}
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return image{}, fmt.Errorf("unpack %s: %w", deb, err)
	}
	if err := cmd.Start(); err != nil {
		return image{}, fmt.Errorf("unpack %s: %w", deb, err)
	}
	readErr := extractImage(stdout, dir)
	if readErr != nil {
		_ = cmd.Process.Kill() // it would wait for a reader for ever
	}
	if err := errors.Join(readErr, cmd.Wait()); err != nil {
		return image{}, fmt.Errorf("unpack %s: %w", deb, err)
	}
	img, ok := cachedImage(dir)
	if !ok {
		return image{}, fmt.Errorf("unpack %s: no kernel image in it", deb)
	}
	return img, nil
}

func extractImage(r io.Reader, dir string) error {
	for files := tar.NewReader(r); ; {
		h, err := files.Next()
		if err == io.EOF {
			_, err = io.Copy(io.Discard, r) // padding behind the archive's end
			return err
		}
		if err != nil {
			return err
		}
		if name := filepath.Base(h.Name); h.Typeflag == tar.TypeReg && strings.HasPrefix(name, "vmlinuz-") {
			if err := writeFile(filepath.Join(dir, name), files); err != nil {
				return err
			}
		}
	}
}

// writeFile gives the file its name when it is complete: an interrupted run must
// not leave half a kernel for the next one to boot.
func writeFile(path string, r io.Reader) error {
	part := filepath.Join(filepath.Dir(path), "part")
	f, err := os.Create(part)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(part, path)
}

// commandError adds to a command's failure what it wrote to standard error.
func commandError(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
	}
	return err
}

func lastLine(text []byte) string {
	lines := slices.Collect(strings.Lines(strings.TrimSpace(string(text))))
	if len(lines) == 0 {
		return "nothing"
	}
	return lines[len(lines)-1]
}
