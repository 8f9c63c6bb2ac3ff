package exporter

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"
)

// pprofFile writes a profile for go tool pprof.
func pprofFile(t *testing.T, p *profile.Profile) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "profile.pb.gz")
	if err := os.WriteFile(file, write(t, p, FormatPprof, Options{}), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

func goToolPprof(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("go", append([]string{"tool", "pprof", "-symbolize=none", "-unit=ms"}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "PPROF_TMPDIR="+t.TempDir(), "GOCACHE="+goCache(t))
	return cmd
}

// goCache is Go's own build cache, which is found by HOME.
func goCache(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// TestGoToolPprof has Go's own tool read what is written.
func TestGoToolPprof(t *testing.T) {
	server, slower := pprofFile(t, cacheServer()), pprofFile(t, slowerServer())
	comparison := pprofFile(t, diffOf(t, slowerServer(), cacheServer()))
	for _, tc := range []struct {
		name string
		args []string
		want []string
	}{
		{"top", []string{"-top", server}, []string{
			`Duration: 10\.50s, Total samples = 10000ms`, `2420ms 24\.20% 24\.20% +2420ms 24\.20%  dict_find`,
			`0     0%.* 8800ms 88\.00%  process_events \(inline\)`,
		}},
		{"top of samples", []string{"-top", "-sample_index=samples", server}, []string{`200ms 20\.00%.*tcp_recvmsg`}},
		{"tags", []string{"-tags", server}, []string{`io_thd_1`, `8820ms \(88\.20%\)`, `incomplete`}},
		{"tag focus", []string{"-top", "-tagfocus=io_thd_1", server}, []string{`800ms  8\.00%.*write`}},
		{"difference", []string{"-top", "-diff_base", server, slower}, []string{`4840ms 48\.40%.*dict_find`, `-900ms  9\.00%.*parse_query`}},
		{"our difference", []string{"-top", comparison}, []string{`4840ms 48\.40%.*dict_find`, `-900ms  9\.00%.*parse_query`}},
		{"merged", []string{"-top", server, server}, []string{`4840ms 24\.20%.*dict_find`}},
		{"source lines", []string{"-top", "-lines", server}, []string{`dict_find .*dict\.c:521`}},
	} {
		out, err := goToolPprof(t, tc.args...).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", tc.name, err, out)
			continue
		}
		for _, want := range tc.want {
			if !regexp.MustCompile(want).Match(out) {
				t.Errorf("%s: no %s in\n%s", tc.name, want, out)
			}
		}
	}
}

// TestPprofServer fetches the flame graph that go tool pprof -http shows.
func TestPprofServer(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	// The tool itself, not `go tool`, so that ending it ends it.
	tool, err := exec.Command("go", "tool", "-n", "pprof").Output()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	cmd := exec.CommandContext(ctx, strings.TrimSpace(string(tool)), "-http="+address, "-no_browser", "-symbolize=none", pprofFile(t, cacheServer()))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	var body []byte
	for {
		resp, err := http.Get("http://" + address + "/ui/flamegraph")
		if err == nil {
			body, err = io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil {
				t.Fatal(err)
			}
			break
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, want := range []string{"lookup_key", "tcp_sendmsg"} {
		if !strings.Contains(string(body), want) {
			t.Errorf("its flame graph has no %s", want)
		}
	}
}
