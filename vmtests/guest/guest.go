// Package guest is what the host and the init process of a test machine agree
// on: which tests to run, and how their output comes back.
package guest

// ConfigPath is where init finds its Config in the initramfs.
const ConfigPath = "/etc/vmtests.json"

// Config is what init has to do.
type Config struct {
	Env  []string `json:"env"`  // environment of every job, KEY=VALUE
	Jobs []Job    `json:"jobs"` // run one after the other
}

// Job is one run of a test binary.
type Job struct {
	Name    string   `json:"name"`
	Path    string   `json:"path"`
	Args    []string `json:"args"`
	Dir     string   `json:"dir"`     // working directory
	Env     []string `json:"env"`     // KEY=VALUE, added to that of all jobs
	Seconds int      `json:"seconds"` // after which it is killed, with all its children
}

// Event is one line that init writes to the second serial port, as JSON. The
// first one is the kernel's console, whose messages come at any time.
type Event struct {
	Kind   string `json:"kind"`
	Job    string `json:"job,omitempty"`    // of start, output and end
	Text   string `json:"text,omitempty"`   // of output: a line; of error: what failed
	Code   int    `json:"code,omitempty"`   // of end: exit code, or 128 and the signal
	Millis int64  `json:"millis,omitempty"` // of boot: since the kernel started; of end: the job's time
	Kernel string `json:"kernel,omitempty"` // of boot: release, as uname -r prints it
	CPUs   int    `json:"cpus,omitempty"`   // of boot: processors the kernel uses
	BTF    bool   `json:"btf,omitempty"`    // of boot: the kernel describes its types
}

// Kinds of events. A complete run is boot, then start, output… and end for each
// job, then done. Error may come at any time.
const (
	KindBoot   = "boot"
	KindStart  = "start"
	KindOutput = "output"
	KindEnd    = "end"
	KindDone   = "done"
	KindError  = "error"
)
