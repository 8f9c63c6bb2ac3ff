// Package trigger tells when something happened that someone waits for: a call
// that took too long, a value that was returned, a crash. Conditions are
// written as `call(parse*) > 50ms`; docs/record.md has them all. The package is
// pure.
package trigger

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/sbxtrace/sbxtrace/trace"
)

// ErrCondition is wrapped by the errors of Parse.
var ErrCondition = errors.New("no condition")

// Kind is what a condition is about.
type Kind uint8

// Kinds of conditions.
const (
	Call  Kind = iota // a call's duration, when it ends
	Self              // its duration without traced callees
	Entry             // that a function is entered
	Ret               // a call's return value
	Rate              // calls per second
	Crash             // a process ends by a signal that it did not expect
	Exit              // a process ends
	Lost              // events are lost
)

// Condition is a condition on what happens.
type Condition struct {
	Text  string // as it was written
	Kind  Kind
	glob  string // functions; empty: all
	op    string
	value float64 // ns, a return value, calls per second
}

// expression is NAME, NAME(GLOB), NAME OP VALUE or NAME(GLOB) OP VALUE. A glob
// may have parentheses in it.
var expression = regexp.MustCompile(`^([a-z]+)\s*(?:\((.*)\))?\s*(?:(<=|>=|==|!=|<|>)\s*(\S+))?$`)

// Parse reads a condition.
func Parse(s string) (*Condition, error) {
	m := expression.FindStringSubmatch(strings.TrimSpace(s))
	if m == nil {
		return nil, fmt.Errorf("%w: %q: it takes call(FUNC) > 50ms, self(FUNC) > 1ms, ret(FUNC) < 0, entry(FUNC), rate(FUNC) > 1000/s, crash, exit or lost", ErrCondition, s)
	}
	c := &Condition{Text: strings.TrimSpace(s), glob: strings.TrimSpace(m[2]), op: m[3]}
	var err error
	switch value := m[4]; m[1] {
	case "call", "self":
		if c.Kind = Call; m[1] == "self" {
			c.Kind = Self
		}
		var d time.Duration
		if d, err = time.ParseDuration(value); err != nil || d < 0 {
			err = fmt.Errorf("%w: %q compares with a time, such as 50ms", ErrCondition, s)
		}
		c.value = float64(d)
	case "ret":
		c.Kind = Ret
		var v int64
		if v, err = strconv.ParseInt(value, 0, 64); err != nil {
			err = fmt.Errorf("%w: %q compares with a whole number", ErrCondition, s)
		}
		c.value = float64(v)
	case "rate":
		c.Kind = Rate
		if c.value, err = strconv.ParseFloat(strings.TrimSuffix(value, "/s"), 64); err != nil || c.value < 0 || c.op != ">" && c.op != ">=" {
			err = fmt.Errorf("%w: %q takes > and calls per second, such as rate > 1000/s", ErrCondition, s)
		}
	case "entry", "crash", "exit", "lost":
		c.Kind = map[string]Kind{"entry": Entry, "crash": Crash, "exit": Exit, "lost": Lost}[m[1]]
		if c.op != "" || c.Kind != Entry && c.glob != "" {
			err = fmt.Errorf("%w: %q: %s compares with nothing", ErrCondition, s, m[1])
		}
	default:
		err = fmt.Errorf("%w: %q is none of call, self, ret, entry, rate, crash, exit and lost", ErrCondition, m[1])
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Glob is which functions the condition is about; empty for all.
func (c *Condition) Glob() string { return c.glob }

// compare reports whether v is what the condition asks for.
func (c *Condition) compare(v float64) bool {
	switch c.op {
	case "<":
		return v < c.value
	case "<=":
		return v <= c.value
	case ">":
		return v > c.value
	case ">=":
		return v >= c.value
	case "==":
		return v == c.value
	case "!=":
		return v != c.value
	}
	return true
}

// signed is a return register as a number: where the upper half is zero it is
// taken for a 32-bit value, as most functions that return -1 leave it.
func signed(v uint64) float64 {
	if v>>32 == 0 {
		return float64(int32(v))
	}
	return float64(int64(v))
}

// leave reports whether an ended call meets the condition.
func (c *Condition) leave(call *trace.Call) bool {
	switch c.Kind {
	case Call:
		return call.End != trace.EndUnwound && call.End != trace.EndUnseen && c.compare(float64(call.Duration()))
	case Self:
		return call.End != trace.EndUnwound && call.End != trace.EndUnseen && c.compare(float64(call.Self()))
	case Ret:
		return call.HasRet && c.compare(signed(call.Ret))
	}
	return false
}

// crashes are the signals that end a process because of what it did: those that
// dump core, and SIGKILL, by which the kernel ends one that is out of memory.
var crashes = map[uint32]bool{3: true, 4: true, 5: true, 6: true, 7: true, 8: true, 9: true, 11: true, 24: true, 25: true, 31: true}

// event reports whether an event meets the condition.
func (c *Condition) event(e *trace.Event) bool {
	switch c.Kind {
	case Crash:
		return e.Kind == trace.KindProcessExit && crashes[e.Status&0x7f]
	case Exit:
		return e.Kind == trace.KindProcessExit
	case Lost:
		return e.Kind == trace.KindLost
	}
	return false
}
