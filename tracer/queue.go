package tracer

import "sync"

// queue hands items from the consumer of events, which must never wait, to the
// manager, which may be busy attaching.
type queue[T any] struct {
	mu    sync.Mutex
	items []T
	ready chan struct{} // has a token when items may be there
}

func (q *queue[T]) put(item T) {
	q.mu.Lock()
	q.items = append(q.items, item)
	q.mu.Unlock()
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// take returns everything that waits, oldest first.
func (q *queue[T]) take() []T {
	q.mu.Lock()
	defer q.mu.Unlock()
	items := q.items
	q.items = nil
	return items
}
