package symbolizer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// ErrNotServed: no debuginfod server has the file, as far as is known.
var ErrNotServed = errors.New("not on any debuginfod server")

// Debuginfod gets debug information by build id from debuginfod servers, as gdb
// and the elfutils do, and keeps it. Its methods are safe for concurrent use:
// a file that several ask for at a time is fetched once.
//
// Servers are asked in order. One that cannot be reached, or does not go on
// sending for Timeout, is not asked again.
type Debuginfod struct {
	// Servers are base URLs, without "/buildid/…".
	Servers []string
	// Dir keeps what was fetched, with the layout of the elfutils:
	// DIR/BUILDID/debuginfo. An empty file says that no server has it.
	Dir string
	// Shared are directories of that layout which are read only: those of the
	// elfutils.
	Shared []string
	// Timeout is how long a server may be silent. Zero: 30 seconds.
	Timeout time.Duration
	// MaxSize bounds a file in bytes. Zero: 2 GiB.
	MaxSize int64
	// Missing is how long it is believed that no server has a file. Zero: 10
	// minutes, as the elfutils do.
	Missing time.Duration
	// Begin, if set, is told of each download before it begins, and returns its
	// context and what is to be called at its end, with nil if that went well and
	// with ErrNotServed if no server has the file. When the context is cancelled,
	// nothing more is fetched.
	Begin func(what string) (context.Context, func(error))

	mu     sync.Mutex
	down   map[string]error         // servers that are not asked any more
	flying map[string]chan struct{} // downloads, closed at their end
	off    bool
}

// NewDebuginfod makes a client by the environment: DEBUGINFOD_URLS are the
// servers, separated by spaces; DEBUGINFOD_TIMEOUT (seconds) and
// DEBUGINFOD_MAXSIZE (bytes) are respected. It returns nil where DEBUGINFOD_URLS
// names none: nothing is ever fetched then.
func NewDebuginfod(getenv func(string) string) *Debuginfod {
	d := &Debuginfod{}
	for _, server := range strings.Fields(getenv("DEBUGINFOD_URLS")) {
		u, err := url.Parse(server)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			continue // the variable may have "ima:…" options
		}
		d.Servers = append(d.Servers, strings.TrimRight(server, "/"))
	}
	if len(d.Servers) == 0 {
		return nil
	}
	if n, err := strconv.Atoi(getenv("DEBUGINFOD_TIMEOUT")); err == nil && n > 0 {
		d.Timeout = time.Duration(n) * time.Second
	}
	if n, err := strconv.ParseInt(getenv("DEBUGINFOD_MAXSIZE"), 10, 64); err == nil && n > 0 {
		d.MaxSize = n
	}
	cache, home := getenv("XDG_CACHE_HOME"), getenv("HOME")
	if cache == "" && home != "" {
		cache = filepath.Join(home, ".cache")
	}
	if cache != "" {
		d.Dir = filepath.Join(cache, "sbxtrace", "debuginfod")
		d.Shared = append(d.Shared, filepath.Join(cache, "debuginfod_client"))
	}
	if path := getenv("DEBUGINFOD_CACHE_PATH"); path != "" {
		d.Shared = append([]string{path}, d.Shared...)
	}
	return d
}

// Kinds of files that servers have for a build id.
const (
	DebugInfo  = "debuginfo"  // what was split off the program or library
	Executable = "executable" // the program or library itself
)

// Find returns the path of the file of a kind with a build id, from the cache or
// fetched. name is what Begin is told that it is for. It fails with ErrNotServed if there is none, else with what kept a
// server from answering.
func (d *Debuginfod) Find(buildID, kind, name string) (string, error) {
	if !isBuildID(buildID) {
		return "", fmt.Errorf("build id %q: %w", buildID, ErrMalformed)
	}
	for _, dir := range append(d.Shared, d.Dir) {
		path := filepath.Join(dir, buildID, kind)
		if info, err := os.Stat(path); dir != "" && err == nil && info.Mode().IsRegular() && info.Size() > 0 {
			return path, nil
		}
	}
	if d.Dir == "" {
		return "", fmt.Errorf("no directory to keep debug information in: neither XDG_CACHE_HOME nor HOME is set: %w", ErrNotServed)
	}
	path := filepath.Join(d.Dir, buildID, kind)
	leave, err := d.enter(path)
	if err != nil {
		return "", err
	}
	defer leave()
	// Another one may just have fetched it, or found it missing.
	if info, err := os.Stat(path); err == nil {
		if info.Size() > 0 {
			return path, nil
		}
		if time.Since(info.ModTime()) < orDefault(d.Missing, 10*time.Minute) {
			return "", fmt.Errorf("build id %s: %w", buildID, ErrNotServed)
		}
	}
	ctx, end := context.Background(), func(error) {}
	if d.Begin != nil {
		ctx, end = d.Begin(fmt.Sprintf("%s of %s (build id %s)", kind, name, buildID))
	}
	err = d.fetch(ctx, buildID, kind, path)
	end(err)
	return path, err
}

func orDefault[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

func isBuildID(id string) bool {
	return len(id) >= 4 && len(id) <= 128 && len(id)%2 == 0 && strings.Trim(id, "0123456789abcdef") == ""
}

// enter waits until nobody else fetches the file.
func (d *Debuginfod) enter(path string) (leave func(), err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for d.flying[path] != nil {
		wait := d.flying[path]
		d.mu.Unlock()
		<-wait
		d.mu.Lock()
	}
	if d.off {
		return nil, fmt.Errorf("downloads were stopped: %w", context.Canceled)
	}
	if d.flying == nil {
		d.flying, d.down = make(map[string]chan struct{}), make(map[string]error)
	}
	done := make(chan struct{})
	d.flying[path] = done
	return func() {
		d.mu.Lock()
		delete(d.flying, path)
		d.mu.Unlock()
		close(done)
	}, nil
}

func (d *Debuginfod) fetch(ctx context.Context, buildID, kind, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	var errs []error
	for _, server := range d.Servers {
		d.mu.Lock()
		down := d.down[server]
		d.mu.Unlock()
		if down != nil {
			errs = append(errs, down)
			continue
		}
		err := d.fetchFrom(ctx, server, buildID, kind, path)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, ErrNotServed):
			continue
		case ctx.Err() != nil:
			d.mu.Lock()
			d.off = true
			d.mu.Unlock()
			return fmt.Errorf("download from %s: %w", server, ctx.Err())
		case errors.Is(err, errServerDown):
			d.mu.Lock()
			d.down[server] = err
			d.mu.Unlock()
		}
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return errors.Join(errs...) // it may be there the next time
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return err
	}
	now := time.Now()
	_ = os.Chtimes(path, now, now) // an older one may have been there
	return fmt.Errorf("build id %s: %w", buildID, ErrNotServed)
}

// errServerDown marks errors after which a server is not asked again.
var errServerDown = errors.New("not reachable")

// fetchFrom gets a file from one server. It has its name only once it is whole
// and of the right build id.
func (d *Debuginfod) fetchFrom(ctx context.Context, server, buildID, kind, path string) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timeout := orDefault(d.Timeout, 30*time.Second)
	silent := fmt.Errorf("silent for %v: %w", timeout, errServerDown)
	watchdog := time.AfterFunc(timeout, func() { cancel(silent) })
	defer watchdog.Stop()

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, server+"/buildid/"+buildID+"/"+kind, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "sbxtrace")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return fmt.Errorf("%s: %w", server, cause)
		}
		return fmt.Errorf("%w: %w", errServerDown, err)
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusNotFound:
		return ErrNotServed
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("%s: %s", server, resp.Status)
	}
	limit := orDefault(d.MaxSize, 2<<30)
	if resp.ContentLength > limit {
		return fmt.Errorf("%s: %d bytes: %w", server, resp.ContentLength, ErrTooLarge)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".download-*")
	if err != nil {
		return err
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	body := &watchedReader{io.LimitReader(resp.Body, limit+1), watchdog, timeout}
	n, err := io.Copy(f, body)
	switch {
	case err != nil && context.Cause(ctx) != nil:
		return fmt.Errorf("%s: %w", server, context.Cause(ctx))
	case err != nil:
		return fmt.Errorf("%s: %w", server, err)
	case n > limit:
		return fmt.Errorf("%s: more than %d bytes: %w", server, limit, ErrTooLarge)
	}
	if err := checkServed(f, n, buildID); err != nil {
		return fmt.Errorf("%s: %w", server, err)
	}
	return os.Rename(f.Name(), path)
}

// checkServed makes sure that a server has sent what it was asked for.
func checkServed(f *os.File, size int64, buildID string) error {
	b, err := Options{NoDebugFiles: true}.NewBinary(f, size, "what it sent")
	if err != nil {
		return err
	}
	if b.BuildID != buildID {
		return fmt.Errorf("%w: what it sent has build id %q", ErrMalformed, b.BuildID)
	}
	return nil
}

// watchedReader puts off the watchdog as long as something comes.
type watchedReader struct {
	r        io.Reader
	watchdog *time.Timer
	timeout  time.Duration
}

func (w *watchedReader) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if n > 0 {
		w.watchdog.Reset(w.timeout)
	}
	return n, err
}
