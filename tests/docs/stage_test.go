package docs

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/pprof"
	"strings"

	"github.com/sbxtrace/sbxtrace/internal/synth"
	"github.com/sbxtrace/sbxtrace/recording"
	"github.com/sbxtrace/sbxtrace/symbolizer"
	"github.com/sbxtrace/sbxtrace/trace"
)

// placeholder is what a page writes for a process of the reader's.
type placeholder struct {
	mention string // the first whose text the command contains, counts
	target  string // name of the process that it stands for
}

// placeholders say which process "4711" and "PID" stand for.
var placeholders = []placeholder{
	{mention: "net/http", target: "gohttp"},
	{mention: "libssl", target: "nginx"},
	{mention: "", target: "demo"},
}

var anyPID = regexp.MustCompile(`\b(4711|PID)\b`)

// adapted are commands that a test cannot run as they stand, and what is run
// instead. $REPO is the repository.
var adapted = []struct {
	shown *regexp.Regexp
	run   string
}{
	// A target of the Makefile is there, with all it depends on.
	{regexp.MustCompile(`^(?:sudo )?make ([a-z-]+.*)$`), `make -n -C "$$REPO" ${1}`},
	// What is installed is a program of this module.
	{regexp.MustCompile(`^go install github\.com/sbxtrace/sbxtrace/(cmd/\S+)@latest$`), `go build -C "$$REPO" -o /dev/null ./${1}`},
	{regexp.MustCompile(`^\.ci/run$`), `bash -n "$$REPO/.ci/run"`},
	// Recorders run in the background until they are told to save; the one that a
	// lone trigger is for is started with it.
	{regexp.MustCompile(`^(sudo sbxtrace record .*) &$`), `${1} --duration 1s`},
	{regexp.MustCompile(`^sudo sbxtrace trigger$`), `sudo sbxtrace record --name demo --ring 16MiB --max-triggers 1 --ready-file ready & ` +
		`until [ -e ready ]; do sleep 0.05; done; sudo sbxtrace trigger && wait $$!`},
	// What is replayed as it happened takes as long.
	{regexp.MustCompile(`--speed 1x`), `--speed 100x`},
	// A server that nobody runs is not asked, and one that does not answer is no trouble.
	{regexp.MustCompile(`https://debuginfod\.debian\.net`), `http://127.0.0.1:9`},
}

// service is a program that a page may mention, started before the first
// command that does.
type service struct {
	mention *regexp.Regexp
	name    string
	command string
	own     bool // the page may start it itself, by the same command
}

var services = []service{
	{mention: regexp.MustCompile(`\bdemo\b|4711|PID|^sudo sbxtrace trigger$`), name: "demo", command: "build/demo/demo >/dev/null", own: true},
	{mention: regexp.MustCompile(`--name worker`), name: "worker", command: "./worker"},
	{mention: regexp.MustCompile(`net/http`), name: "gohttp", command: "./gohttp"},
	{mention: regexp.MustCompile(`nginx|libssl`), name: "nginx", command: `nginx -p . -c nginx.conf -g "daemon off;"`},
}

// files are what the working directory of commands holds, beside programs.
var files = map[string]string{
	"data.csv": strings.Repeat("1,one\n2,two\n3,three\n", 20),
	"nginx.conf": `error_log stderr; pid nginx.pid; worker_processes 1;
events { worker_connections 16; }
http { access_log off; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
uwsgi_temp_path uwsgi; scgi_temp_path scgi; server { listen unix:nginx.sock; } }
`,
	"bin/flamegraph.pl": "#!/bin/sh\nexec cat\n",
	// Root has no need of sudo, and the real one has a PATH of its own.
	"bin/sudo": "#!/bin/sh\nwhile [ \"${1#-}\" != \"$1\" ]; do shift; done\nexec env \"$@\"\n",
	"Makefile": "all:\n\t@sleep 0.2\n",
}

// profiles are those of the exporter's tests, whose reports the pages show.
var profiles = map[string]string{
	"cpu.pb.gz": "server.pb.gz", "old.pb.gz": "server.pb.gz", "new.pb.gz": "slower.pb.gz",
	"monday.pb.gz": "server.pb.gz", "tuesday.pb.gz": "slower.pb.gz",
}

// programs are built once, into a directory of their own.
type programs struct {
	dir  string   // has sbxtrace, demo, service and gohttp
	repo string   // the repository
	env  []string // where Go keeps its files: commands have another home directory
}

// build builds the programs; sbxtrace is $SBXTRACE_BIN where that is set.
func build(dir string) (*programs, error) {
	repo, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		return nil, err
	}
	p := &programs{dir: dir, repo: repo}
	for _, name := range []string{"GOMODCACHE", "GOCACHE", "GOPATH"} {
		value, err := exec.Command("go", "env", name).Output()
		if err != nil {
			return nil, err
		}
		p.env = append(p.env, name+"="+strings.TrimSpace(string(value)))
	}
	for _, line := range []string{
		"CGO_ENABLED=0 go build -o $DIR/sbxtrace ./cmd/sbxtrace",
		"CGO_ENABLED=0 go build -o $DIR/gohttp ./internal/targets/src/gohttp",
		// As scripts/demo.sh does.
		"gcc -g -pthread -I internal/targets/src/include -o $DIR/demo internal/targets/src/demo/demo.c",
		"gcc -g -O1 -o $DIR/service tests/docs/testdata/service.c",
	} {
		if path := os.Getenv("SBXTRACE_BIN"); path != "" && strings.HasSuffix(line, "sbxtrace") {
			line = `cp "$SBXTRACE_BIN" $DIR/sbxtrace`
		}
		cmd := exec.Command("bash", "-c", line)
		cmd.Dir, cmd.Env = repo, append(os.Environ(), "DIR="+dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%s: %w\n%s", line, err, out)
		}
	}
	return p, nil
}

// stage fills a page's working directory. Its programs are copies: probes in a
// file concern everyone who runs that file.
func (p *programs) stage(dir string) error {
	for name, from := range map[string]string{
		"bin/sbxtrace": "sbxtrace", "build/demo/demo": "demo", "server": "service", "import": "service", "worker": "service", "gohttp": "gohttp",
	} {
		text, err := os.ReadFile(filepath.Join(p.dir, from))
		if err != nil {
			return err
		}
		if err := write(filepath.Join(dir, name), text); err != nil {
			return err
		}
	}
	for name, from := range profiles {
		text, err := os.ReadFile(filepath.Join(p.repo, "exporter", "testdata", from))
		if err != nil {
			return err
		}
		if err := write(filepath.Join(dir, name), text); err != nil {
			return err
		}
	}
	var heap bytes.Buffer
	if err := pprof.WriteHeapProfile(&heap); err != nil {
		return err
	}
	if err := write(filepath.Join(dir, "heap.pb.gz"), heap.Bytes()); err != nil {
		return err
	}
	calls, err := recorded()
	if err != nil {
		return err
	}
	for _, name := range []string{"calls.sbx", "server.sbx", "client.sbx"} {
		if err := write(filepath.Join(dir, name), calls); err != nil {
			return err
		}
	}
	for name, text := range files {
		if err := write(filepath.Join(dir, name), []byte(text)); err != nil {
			return err
		}
	}
	return nil
}

// recorded is a recording of calls that are made up.
func recorded() ([]byte, error) {
	var out bytes.Buffer
	s := synth.New(synth.Options{})
	w, err := recording.NewWriter(recording.NewWriterStore(&out), recording.Options{Functions: s})
	if err != nil {
		return nil, err
	}
	w.Begin(trace.NewPairer(trace.NewStats(), nil))
	for range 2000 {
		w.Event(s.Next())
	}
	w.Finish(s.Now())
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func write(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o755)
}

// runnable is a command with its placeholders filled in.
func runnable(text string) (string, error) {
	for _, a := range adapted {
		text = a.shown.ReplaceAllString(text, a.run)
	}
	if !anyPID.MatchString(text) {
		return text, nil
	}
	for _, p := range placeholders {
		if !strings.Contains(text, p.mention) {
			continue
		}
		pids, err := symbolizer.FindByName(p.target)
		if err != nil {
			return "", err
		}
		if len(pids) == 0 {
			return "", fmt.Errorf("%s does not run", p.target)
		}
		return anyPID.ReplaceAllString(text, fmt.Sprint(pids[0])), nil
	}
	return text, nil
}
