package recording

import (
	"encoding/json"
	"fmt"
	"time"
)

// Session is what a recording knows about how it was made: the JSON object of
// its first block. Fields that were not known are left out.
type Session struct {
	Tool    string   `json:"tool"`              // "sbxtrace" and its version
	Command []string `json:"command,omitempty"` // the command line that recorded
	Host    string   `json:"host,omitempty"`
	OS      string   `json:"os,omitempty"`
	Kernel  string   `json:"kernel,omitempty"` // release
	Arch    string   `json:"arch,omitempty"`   // as Go names it: amd64, arm64
	CPUs    int      `json:"cpus,omitempty"`
	Boot    string   `json:"boot,omitempty"` // boot id: times of one boot can be compared

	// Monotonic and Unix are the same moment by both clocks, ns.
	Monotonic uint64 `json:"monotonic,omitempty"`
	Unix      int64  `json:"unix,omitempty"`

	Level     string     `json:"level,omitempty"`
	Selectors *Selectors `json:"selectors,omitempty"`
	Filters   *Filters   `json:"filters,omitempty"`
	Targets   []Process  `json:"targets,omitempty"`
	Modules   []Module   `json:"modules,omitempty"`
	Ring      *Ring      `json:"ring,omitempty"`    // only the newest was kept
	Trigger   *Trigger   `json:"trigger,omitempty"` // what saved it
	Notes     []string   `json:"notes,omitempty"`   // what was done to the recording since
}

// Selectors are the patterns that picked functions.
type Selectors struct {
	Functions []string `json:"functions,omitempty"`
	Regex     []string `json:"regex,omitempty"`
	Modules   []string `json:"modules,omitempty"`
	Packages  []string `json:"packages,omitempty"`
	Files     []string `json:"files,omitempty"`
	Excludes  []string `json:"excludes,omitempty"`
	USDT      []string `json:"usdt,omitempty"`
}

// Filters are what kept calls out of the recording.
type Filters struct {
	MinDuration time.Duration `json:"min_duration,omitempty"` // ns
	MaxDepth    uint32        `json:"depth,omitempty"`
	Sample      uint32        `json:"sample,omitempty"` // one outermost call in so many
	TIDs        []uint32      `json:"tids,omitempty"`
	Comm        string        `json:"comm,omitempty"`
}

// Module is a file in which functions were traced.
type Module struct {
	Path      string `json:"path"`
	BuildID   string `json:"build_id,omitempty"`
	Functions int    `json:"functions,omitempty"`
}

// Ring says what a ring was bounded by.
type Ring struct {
	Bytes int64         `json:"bytes,omitempty"`
	Last  time.Duration `json:"last,omitempty"` // ns
}

// Trigger says what made a ring be saved.
type Trigger struct {
	What string `json:"what"`
	Time uint64 `json:"time"` // ns, CLOCK_MONOTONIC
}

func (s *Session) payload() ([]byte, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("describe the session: %w", err)
	}
	if len(b) > maxRaw {
		return nil, fmt.Errorf("describe the session: %d bytes are too many", len(b))
	}
	return b, nil
}

func parseSession(raw []byte) (*Session, error) {
	s := new(Session)
	if err := json.Unmarshal(raw, s); err != nil {
		return nil, fmt.Errorf("session: %w: %w", err, ErrCorrupt)
	}
	return s, nil
}
