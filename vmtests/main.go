// Command vmtests boots Debian's kernel packages in QEMU, by software emulation
// and without any privileges, and runs the integration tests on them. It is run
// from the top of the repository; manifest.json lists kernels and tests.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/sbxtrace/sbxtrace/internal/testsum"
)

type options struct {
	manifest string
	cache    string
	results  string
	skips    string
	docs     string
	kernels  string
	tests    string
	update   bool
}

var errFailed = errors.New("tests failed")

func main() {
	var o options
	flag.StringVar(&o.manifest, "manifest", "vmtests/manifest.json", "`file` that lists kernels and tests")
	flag.StringVar(&o.cache, "cache", ".cache", "`directory` for kernels, test binaries and logs")
	flag.StringVar(&o.results, "results", "build/results", "`directory` for the results")
	flag.StringVar(&o.skips, "skips", ".ci/allowed-skips", "`file` with the allowed skips")
	flag.StringVar(&o.docs, "docs", "", "write the table of what ran where into this `file`, from the results there are, and boot nothing")
	flag.StringVar(&o.kernels, "kernels", "", "comma-separated `names` of the kernels to boot (default: all)")
	flag.StringVar(&o.tests, "tests", "", "run only tests whose name matches this regular `expression`; no minimum applies to others")
	flag.BoolVar(&o.update, "update", false, "look for newer kernel packages instead of using the ones in the cache")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	switch {
	case errors.Is(err, errFailed):
		os.Exit(1)
	case err != nil:
		fmt.Fprintln(os.Stderr, "vmtests:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	m, err := readManifest(o.manifest)
	if err != nil {
		return err
	}
	if o.docs != "" {
		return writeDocs(o.docs, o.results, m)
	}
	skips, err := testsum.ReadSkips(o.skips)
	if err != nil {
		return err
	}
	if err := m.narrow(o.kernels, o.tests); err != nil {
		return err
	}
	for _, tool := range []string{"qemu-system-x86_64", "apt-get", "dpkg-deb", "ldd"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%w (scripts/install-test-deps.sh installs what is missing)", err)
		}
	}
	images := make([]image, len(m.Kernels))
	for i, k := range m.Kernels {
		if images[i], err = o.image(ctx, k); err != nil {
			return err
		}
	}
	began := time.Now()
	dir, err := filepath.Abs(filepath.Join(o.cache, "vmtests", "build"))
	if err != nil {
		return fmt.Errorf("find build directory: %w", err)
	}
	b := &builder{dir: dir}
	root, err := b.base(ctx, m, m.Tests)
	if err != nil {
		return err
	}
	fmt.Printf("built the tests in %.1f s\n", time.Since(began).Seconds())
	failed := false
	for i, k := range m.Kernels {
		g, err := runKernel(ctx, o, k, images[i], root, m, skips)
		if err != nil {
			return err
		}
		failed = failed || g.Failed > 0
	}
	if failed {
		return errFailed
	}
	return nil
}

// image returns a kernel from the cache, or downloads it.
func (o options) image(ctx context.Context, k kernel) (image, error) {
	dir := filepath.Join(o.cache, "kernels", k.Name)
	if img, ok := cachedImage(dir); ok && !o.update {
		return img, nil
	}
	began := time.Now()
	img, err := fetchKernel(ctx, k, filepath.Join(o.cache, "apt"), dir)
	if err != nil {
		return image{}, err
	}
	fmt.Printf("fetched kernel %s in %.1f s\n", img.release, time.Since(began).Seconds())
	return img, nil
}

// narrow leaves only the named kernels and the matching tests.
func (m *manifest) narrow(kernels, tests string) error {
	if kernels != "" {
		wanted := strings.Split(kernels, ",")
		for _, name := range wanted {
			if !slices.ContainsFunc(m.Kernels, func(k kernel) bool { return k.Name == name }) {
				return fmt.Errorf("no kernel %q in the manifest", name)
			}
		}
		m.Kernels = slices.DeleteFunc(m.Kernels, func(k kernel) bool { return !slices.Contains(wanted, k.Name) })
	}
	re, err := regexp.Compile(tests)
	if err != nil {
		return fmt.Errorf("pattern of tests: %w", err)
	}
	m.Tests = slices.DeleteFunc(m.Tests, func(t test) bool {
		return !re.MatchString(t.Name) || !slices.ContainsFunc(m.Kernels, func(k kernel) bool { return t.MinPass[k.Name] > 0 })
	})
	if len(m.Tests) == 0 {
		return errors.New("nothing to run")
	}
	return nil
}
