package recording

import "fmt"

// Mark is a moment that someone may look for.
type Mark struct {
	Time uint64 // ns, CLOCK_MONOTONIC
	Kind MarkKind
	Text string
}

// MarkKind says what a mark stands for. Values are stored: append only.
type MarkKind uint8

// Kinds of marks.
const (
	MarkTrigger MarkKind = iota + 1 // a trigger fired: the text says which
	MarkNote                        // what the user was told
)

// String names the kind as in JSON.
func (k MarkKind) String() string {
	switch k {
	case MarkTrigger:
		return "trigger"
	case MarkNote:
		return "note"
	}
	return fmt.Sprintf("kind-%d", uint8(k))
}
