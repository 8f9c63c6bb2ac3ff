package main

import (
	"bytes"
	"sync"
)

// lockedBuffer collects the beginning of a tool's output while it is looked at.
type lockedBuffer struct {
	mu   sync.Mutex
	b    *bytes.Buffer
	keep int // bytes; what follows is thrown away
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if room := l.keep - l.b.Len(); room > 0 {
		l.b.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
