package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/sbxtrace/sbxtrace/internal/term"
	"github.com/sbxtrace/sbxtrace/recording"
	"github.com/sbxtrace/sbxtrace/trace"
	"github.com/sbxtrace/sbxtrace/trigger"
	"github.com/sbxtrace/sbxtrace/uprobes"
)

// defaultFlightRing is how much a flight recorder keeps where nothing else says.
const defaultFlightRing = 64 << 20

// flight is a flight recorder: the newest events in memory, saved to a file of
// their own whenever a trigger fires.
type flight struct {
	flags   *recordFlags
	memory  *recording.Memory
	session recording.Session
	rec     *recorder
	notes   *notes
	stop    context.CancelFunc

	due   uint64 // when to save; 0: no trigger has fired since the last time
	what  string // the trigger that did
	at    uint64 // when, ns
	fired int    // triggers that made a recording

	mu    sync.Mutex
	saved int
	err   error // the first that saving brought up
}

// newFlight returns a flight recorder and the store that it keeps events in.
func newFlight(f *recordFlags, s recording.Session, n *notes) *flight {
	kept := f.kept
	if kept.Bytes == 0 {
		kept.Bytes = defaultFlightRing
	}
	s.Ring = &recording.Ring{Bytes: kept.Bytes, Last: kept.Last}
	return &flight{flags: f, memory: recording.NewMemory(kept), session: s, notes: n}
}

// watch returns the sink that waits for the triggers of the flags.
func (f *flight) watch(fns trace.Functions) (*trigger.Watch, error) {
	return trigger.NewWatch(f.flags.conditions, fns, matchGlob, func(c *trigger.Condition, at uint64) { f.trigger(c.Text, at) })
}

// matchGlob compiles a glob over recorded or traced functions.
func matchGlob(glob string) (func(*trace.Func) bool, error) {
	m, err := uprobes.Selector{Funcs: []string{glob}}.Compile()
	if err != nil {
		return nil, err
	}
	return func(fn *trace.Func) bool { return matchFunc(m, fn) }, nil
}

// trigger notes that a trigger fired. Those that fire until the recording of the
// first is saved are marks in it.
func (f *flight) trigger(what string, at uint64) {
	if f.flags.maxTriggers > 0 && f.fired >= f.flags.maxTriggers {
		return
	}
	f.rec.Mark(recording.Mark{Time: at, Kind: recording.MarkTrigger, Text: what})
	if f.due == 0 {
		f.due, f.what, f.at = at+uint64(f.flags.after), what, at
	}
}

// tick saves what is due.
func (f *flight) tick(now uint64) {
	if f.due != 0 && now >= f.due {
		f.save()
	}
}

// save writes what is kept to a file, in the background.
func (f *flight) save() {
	from := uint64(0)
	if b := uint64(f.flags.before); b > 0 && f.at > b {
		from = f.at - b
	}
	path, what := f.path(), f.what
	s := f.session
	s.Trigger = &recording.Trigger{What: f.what, Time: f.at}
	f.due = 0
	f.fired++
	f.rec.Then(func() { f.write(path, what, &s, from) })
	if f.flags.maxTriggers > 0 && f.fired >= f.flags.maxTriggers {
		f.stop()
	}
}

func (f *flight) write(path, what string, s *recording.Session, from uint64) {
	out, err := newRecording(path)
	if err == nil {
		if err = f.memory.Save(out.File, s, from); err == nil {
			err = out.begin()
		}
		if err != nil {
			os.Remove(out.Name())
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.notes.printf("%s: %v", what, err)
		if f.err == nil {
			f.err = err
		}
		return
	}
	f.saved++
	info, err := os.Stat(path)
	if err == nil {
		f.notes.printf("%s: saved %s in %s", what, term.Bytes(info.Size()), path)
	}
}

// path names a recording by the time and the trigger.
func (f *flight) path() string {
	stem := strings.TrimSuffix(f.flags.path, ".sbx")
	if stem == "" {
		stem = "sbxtrace"
	}
	at := time.Unix(0, int64(f.at)+wallOffset())
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_', r == '.':
			return r
		}
		return '-'
	}, f.what)
	name = strings.Trim(name, "-.")
	for strings.Contains(name, "--") {
		name = strings.ReplaceAll(name, "--", "-")
	}
	const most = 60
	if len(name) > most {
		name = name[:most]
	}
	path := fmt.Sprintf("%s-%s-%s.sbx", stem, at.Format("20060102-150405.000"), name)
	if f.fired > 0 {
		if _, err := os.Stat(path); err == nil { // two in a millisecond
			path = strings.TrimSuffix(path, ".sbx") + fmt.Sprintf("-%d.sbx", f.fired)
		}
	}
	return path
}

// end saves what is still due and says what came of the session.
func (f *flight) end() error {
	if f.due != 0 {
		f.save()
	}
	err := f.rec.Close() // all that is being saved is saved then
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fired == 0 {
		f.notes.printf("nothing was saved: no trigger fired")
	}
	return errors.Join(err, f.err)
}

// checkTriggers reads the flags of triggers.
func (f *recordFlags) checkTriggers() error {
	for _, s := range f.triggers {
		c, err := trigger.Parse(s)
		if err == nil && c.Glob() != "" {
			_, err = matchGlob(c.Glob())
		}
		if err != nil {
			return usagef("--trigger: %w", err)
		}
		f.conditions = append(f.conditions, c)
	}
	f.flight = len(f.triggers) > 0 || f.path == "" && f.isRing()
	switch {
	case f.before < 0 || f.after < 0 || f.maxTriggers < 0:
		return usagef("--before, --after and --max-triggers cannot be negative")
	case !f.flight && (f.before > 0 || f.after > 0 || f.maxTriggers > 0):
		return usagef("--before, --after and --max-triggers are for --trigger, or for --ring without -o")
	}
	return nil
}

// needsArgs reports whether a condition looks at return values.
func (f *recordFlags) needsArgs() bool {
	for _, c := range f.conditions {
		if c.Kind == trigger.Ret {
			return true
		}
	}
	return false
}

// stemDir is the directory that recordings are saved in.
func (f *recordFlags) stemDir() string { return filepath.Dir(f.path + "x") }
