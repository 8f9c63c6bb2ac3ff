package recording

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/sbxtrace/sbxtrace/trace"
)

// How long events may wait for their block to be written, and how long when
// open calls make blocks large.
const (
	sealAfter     = uint64(time.Second)
	sealAfterMost = uint64(5 * time.Second)
)

// queued is how many full blocks may wait for the store. A store that is slower
// makes the consumer wait, and the kernel's buffer fill.
const queued = 4

// Options say what a Writer records beside the events.
type Options struct {
	Session Session
	// Functions names the functions of events.
	Functions trace.Functions
	// Process describes a process when it is first mentioned and when it
	// has executed another program; it may be called after its end. Nil:
	// processes are not described.
	Process func(pid uint32) Process
	// Frame describes an address of a stack. Nil: they stay numbers.
	Frame func(pid uint32, addr uint64) Frame
	// Wall is Unix time less CLOCK_MONOTONIC in ns. Nil: unknown, 0.
	Wall func() int64
	// SealAfter is how long an event may wait for its block to be written;
	// 0: a second.
	SealAfter time.Duration
	// BlockBytes is about how large blocks may become; 0: 4 MiB. A ring
	// needs blocks that are small beside it.
	BlockBytes int
}

// Writer records the stream of a session: it is a trace.Tap. All methods are for
// the goroutine that consumes events, except Err, Written and the close of the
// store, which a goroutine of the Writer's own uses.
type Writer struct {
	store     Store
	opt       Options
	b         builder
	pairer    *trace.Pairer
	state     trace.Snapshot
	processes map[uint32]Process
	ended     []uint32 // processes to forget with the next block

	id       uint64
	seq      uint64
	now      uint64 // of the last tick
	ticked   bool   // it is not in the stream yet
	opened   uint64 // time at which the block began, 0: it is empty
	finished bool

	jobs    chan *job
	free    chan *job
	done    sync.WaitGroup
	err     atomic.Pointer[error]
	written atomic.Int64
	events  uint64
	calls   uint64
}

// job is a block on its way to the store.
type job struct {
	header Header
	raw    []byte
	do     func() // instead of a block: called when all before it are in the store
}

// NewWriter begins a recording in store, which it owns from here on: on an error
// it is closed.
func NewWriter(store Store, opt Options) (*Writer, error) {
	if opt.SealAfter == 0 {
		opt.SealAfter = time.Duration(sealAfter)
	}
	w := &Writer{
		store: store, opt: opt, id: rand.Uint64(), processes: make(map[uint32]Process),
		jobs: make(chan *job, queued), free: make(chan *job, queued+2),
	}
	w.b.fns, w.b.frame, w.b.most = opt.Functions, opt.Frame, opt.BlockBytes
	if w.b.most == 0 {
		w.b.most = fullBytes
	}
	if opt.Process != nil {
		w.b.process = w.process
	}
	payload, err := opt.Session.payload()
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	w.done.Add(1)
	go w.save()
	w.send(BlockSession, counts{}, payload)
	w.b.begin(&w.state)
	return w, nil
}

// process describes a process from what is known, or asks.
func (w *Writer) process(pid uint32) Process {
	p, ok := w.processes[pid]
	if !ok {
		p = w.opt.Process(pid)
		w.processes[pid] = p
	}
	return p
}

// Begin implements trace.Tap. The recording begins with the state that p has.
func (w *Writer) Begin(p *trace.Pairer) {
	w.pairer = p
	p.Snapshot(&w.state)
	w.b.begin(&w.state)
}

// Gap says that what comes now does not continue what came before: blocks of a
// recording that is copied are missing.
func (w *Writer) Gap() {
	if w.recording() {
		w.seal()
		w.seq++
	}
}

// Region implements trace.Tap.
func (w *Writer) Region(pid uint32, r trace.Region) {
	if w.recording() {
		w.b.region(pid, r)
	}
}

// recording reports whether there is any use in going on.
func (w *Writer) recording() bool { return !w.finished && w.err.Load() == nil }

// Event implements trace.Tap.
func (w *Writer) Event(e *trace.Event) {
	if !w.recording() {
		return
	}
	w.flushTick()
	w.begun(e.Time)
	if e.Kind >= trace.KindFork { // neither entry nor exit
		w.processEvent(e)
	}
	w.b.event(e)
	if e.Kind == trace.KindExec && w.b.frames.n > 0 {
		w.seal() // addresses mean something else from here on
		return
	}
	if w.b.full() {
		w.seal()
	}
}

// begun notes when the first thing came into the block.
func (w *Writer) begun(at uint64) {
	if w.opened == 0 {
		w.opened = max(at, w.now, 1)
	}
}

// processEvent keeps what is known of processes.
func (w *Writer) processEvent(e *trace.Event) {
	switch e.Kind {
	case trace.KindFork:
		// A child is what its parent is until it executes another program.
		if parent, ok := w.processes[e.PID]; ok && e.ChildPID != e.PID && w.b.process != nil {
			parent.PID, parent.Parent = e.ChildPID, e.PID
			w.processes[e.ChildPID] = parent
		}
	case trace.KindExec:
		delete(w.processes, e.PID)
	case trace.KindProcessExit:
		w.ended = append(w.ended, e.PID)
	}
}

// Tick implements trace.Tap.
func (w *Writer) Tick(now uint64) {
	if !w.recording() {
		return
	}
	w.now, w.ticked = now, true
	if w.opened == 0 || now < w.opened {
		return
	}
	age := now - w.opened
	// A block that is mostly a list of open calls waits for more events.
	if age >= sealAfterMost || age >= uint64(w.opt.SealAfter) && w.b.worthwhile() {
		w.seal()
	}
}

// flushTick puts the last tick into the stream. Those before it, without an
// event between, change nothing.
func (w *Writer) flushTick() {
	if w.ticked {
		w.ticked = false
		w.b.tick(itemTick, w.now)
	}
}

// Mark records a moment.
func (w *Writer) Mark(m Mark) {
	if w.recording() {
		w.begun(m.Time)
		w.b.mark(&m)
	}
}

// Flush writes what was recorded so far to the store, and waits for it.
func (w *Writer) Flush() error {
	if w.opened != 0 && w.recording() {
		w.seal()
	}
	return w.wait()
}

// Then writes what was recorded so far to the store and has do called when the
// store has it, by the goroutine that the store belongs to.
func (w *Writer) Then(do func()) {
	if w.opened != 0 && w.recording() {
		w.seal()
	}
	w.jobs <- &job{do: do}
}

// wait returns when the store has all blocks, and the Writer's error.
func (w *Writer) wait() error {
	saved := make(chan struct{})
	w.jobs <- &job{do: func() { close(saved) }}
	<-saved
	return w.Err()
}

// Finish implements trace.Tap: the stream ends.
func (w *Writer) Finish(now uint64) {
	if !w.recording() {
		return
	}
	w.flushTick()
	w.begun(now)
	w.b.at(now)
	w.b.tick(itemEnd, now)
	w.seal()
	w.finished = true
}

// Rows records sums that were counted in the kernel, and the time that they
// cover, ns.
func (w *Writer) Rows(rows []trace.Row, first, last uint64) {
	if w.err.Load() != nil {
		return
	}
	w.send(BlockRows, counts{first: first, last: last}, appendRows(nil, rows, w.opt.Functions))
}

// Err returns the error that ended the recording, nil while it goes on.
func (w *Writer) Err() error {
	if err := w.err.Load(); err != nil {
		return *err
	}
	return nil
}

// Written returns how many bytes are in the store; Events and Calls how much
// was recorded.
func (w *Writer) Written() int64 { return w.written.Load() }

// Events returns how many events were recorded.
func (w *Writer) Events() uint64 { return w.events }

// Calls returns how many calls were recorded.
func (w *Writer) Calls() uint64 { return w.calls }

// Close writes what is left and closes the store. It returns the first error of
// the recording.
func (w *Writer) Close() error {
	if w.opened != 0 && w.recording() {
		w.seal()
	}
	close(w.jobs)
	w.done.Wait()
	if err := w.store.Close(); err != nil {
		w.fail(err)
	}
	return w.Err()
}

// seal ends the block and begins the next.
func (w *Writer) seal() {
	j := w.job()
	j.raw = w.b.finish(j.raw[:0])
	w.push(j, BlockEvents, w.b.count)
	w.events += uint64(w.b.count.events)
	w.calls += uint64(w.b.count.calls)
	for _, pid := range w.ended {
		delete(w.processes, pid)
	}
	w.ended = w.ended[:0]
	w.opened = 0
	if w.pairer != nil {
		w.pairer.Snapshot(&w.state)
	}
	w.b.begin(&w.state)
}

func (w *Writer) job() *job {
	select {
	case j := <-w.free:
		return j
	default:
		return new(job)
	}
}

func (w *Writer) send(kind BlockKind, c counts, payload []byte) {
	j := w.job()
	j.raw = append(j.raw[:0], payload...)
	w.push(j, kind, c)
}

func (w *Writer) push(j *job, kind BlockKind, c counts) {
	if c.last == 0 {
		c.first = 0
	}
	j.header = Header{
		Version: Version, Kind: kind, Recording: w.id, Seq: w.seq, First: c.first, Last: c.last,
		Events: c.events, Calls: c.calls, Lost: c.lost, Marks: c.marks,
	}
	if w.opt.Wall != nil {
		j.header.Wall = w.opt.Wall()
	}
	w.seq++
	w.jobs <- j
}

// save compresses blocks and hands them to the store, until jobs is closed.
func (w *Writer) save() {
	defer w.done.Done()
	p, err := newPacker()
	if err != nil {
		w.fail(err)
	}
	for j := range w.jobs {
		if j.do != nil {
			j.do()
			continue
		}
		if w.err.Load() == nil {
			b := p.pack(&j.header, j.raw)
			if err := w.store.Append(&j.header, b); err != nil {
				w.fail(err)
			} else {
				w.written.Add(int64(len(b)))
			}
		}
		select {
		case w.free <- j:
		default:
		}
	}
}

func (w *Writer) fail(err error) { w.err.CompareAndSwap(nil, &err) }

// packer makes stored blocks of payloads. It reuses its memory.
type packer struct {
	enc *zstd.Encoder
	buf []byte
	out []byte
}

func newPacker() (*packer, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(4<<20), zstd.WithEncoderCRC(false))
	if err != nil {
		return nil, fmt.Errorf("start zstd: %w", err)
	}
	return &packer{enc: enc}, nil
}

// pack returns header and payload as stored, valid until the next call.
func (p *packer) pack(h *Header, raw []byte) []byte {
	p.buf = p.enc.EncodeAll(raw, p.buf[:0])
	payload := p.buf
	h.Raw, h.Flags = uint32(len(raw)), flagZstd
	if len(payload) >= len(raw) {
		payload, h.Flags = raw, 0
	}
	h.Stored = uint32(len(payload))
	p.out = appendHeader(p.out[:0], h, payload)
	p.out = append(p.out, payload...)
	return p.out
}

// Pack returns the stored form of a block of the present version, not
// compressed: h as it is but for sizes and checksums, and the payload.
func Pack(h *Header, payload []byte) []byte {
	h.Version, h.Flags = Version, 0
	h.Stored, h.Raw = uint32(len(payload)), uint32(len(payload))
	return append(appendHeader(nil, h, payload), payload...)
}
