// Package recording writes and reads recordings: a session's stream of events in
// blocks that each can be read alone, on disk or as a ring of the newest. The
// format is described byte by byte in docs/recording-format.md. The package
// knows nothing of BPF or of live processes and works on any operating system.
package recording

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Version is the version of the format that is written. All versions up to it
// can be read.
const Version = 1

// Errors of reading. They are wrapped with what was found where.
var (
	// ErrNotRecording says that a file has no block of a recording in it.
	ErrNotRecording = errors.New("not a recording of sbxtrace")
	// ErrCorrupt says that a block's contents contradict themselves.
	ErrCorrupt = errors.New("damaged recording")
	// ErrVersion says that a newer version of sbxtrace wrote the recording.
	ErrVersion = errors.New("recording of a newer version")
)

// magic begins every block. It cannot occur in text, and a transfer that
// changes line ends breaks it.
const magic = "\x89SBX\r\n\x1a\n"

// Sizes in bytes, and bounds that keep what a hostile recording can ask for
// small.
const (
	headerSize  = 96
	trailerSize = 32
	maxStored   = 32 << 20 // payload as stored
	maxRaw      = 32 << 20 // payload decompressed
	maxItems    = 1 << 20  // events and other items of a block
	maxTable    = 1 << 20  // entries of a block's tables
	maxFuncs    = 1 << 18  // functions that it mentions
	maxState    = 8 << 20  // checkpoint
	maxIndexRaw = 64 << 20 // an index: of four million blocks
)

// BlockKind says what a block holds. Values are stored: append only.
type BlockKind uint8

// Kinds of blocks.
const (
	BlockSession BlockKind = iota + 1 // what was recorded, where and how: a JSON object
	BlockEvents                       // a part of the stream
	BlockRows                         // sums per function, of levels count and latency
	BlockIndex                        // where the blocks are
)

// String names the kind for people.
func (k BlockKind) String() string {
	switch k {
	case BlockSession:
		return "session"
	case BlockEvents:
		return "events"
	case BlockRows:
		return "sums"
	case BlockIndex:
		return "index"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// flagZstd says that a payload is a zstd frame.
const flagZstd = 1

// Header is what stands before each block's payload.
type Header struct {
	Version   uint16
	Kind      BlockKind
	Flags     uint8
	Recording uint64 // the same random number in all blocks of one recording
	Seq       uint64 // of the block in its recording, from 0
	Stored    uint32 // bytes of payload that follow the header
	Raw       uint32 // bytes of payload when decompressed
	First     uint64 // earliest time in the block, ns CLOCK_MONOTONIC; 0: none
	Last      uint64 // latest time
	Wall      int64  // Unix time less CLOCK_MONOTONIC, ns, when the block was written
	Events    uint32 // events of all kinds
	Calls     uint32 // entries among them
	Lost      uint64 // events that the losses among them count
	Marks     uint32 // triggers and notes among the items

	payloadSum uint32
}

// castagnoli is the polynomial of CRC32C, which processors have instructions for.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendHeader appends h in its stored form, with payload's checksum.
func appendHeader(dst []byte, h *Header, payload []byte) []byte {
	le := binary.LittleEndian
	at := len(dst)
	dst = append(dst, magic...)
	dst = le.AppendUint16(dst, h.Version)
	dst = append(dst, byte(h.Kind), h.Flags)
	dst = le.AppendUint32(dst, headerSize)
	dst = le.AppendUint64(dst, h.Recording)
	dst = le.AppendUint64(dst, h.Seq)
	dst = le.AppendUint32(dst, h.Stored)
	dst = le.AppendUint32(dst, h.Raw)
	dst = le.AppendUint64(dst, h.First)
	dst = le.AppendUint64(dst, h.Last)
	dst = le.AppendUint64(dst, uint64(h.Wall))
	dst = le.AppendUint32(dst, h.Events)
	dst = le.AppendUint32(dst, h.Calls)
	dst = le.AppendUint64(dst, h.Lost)
	dst = le.AppendUint32(dst, h.Marks)
	dst = le.AppendUint32(dst, crc32.Checksum(payload, castagnoli))
	dst = le.AppendUint32(dst, 0)
	return le.AppendUint32(dst, crc32.Checksum(dst[at:], castagnoli))
}

// parseHeader reads a stored header. Errors wrap ErrCorrupt or ErrVersion.
func parseHeader(b []byte) (Header, error) {
	var h Header
	le := binary.LittleEndian
	if len(b) < headerSize || string(b[:len(magic)]) != magic {
		return h, fmt.Errorf("no block: %w", ErrCorrupt)
	}
	h.Version = le.Uint16(b[8:])
	if h.Version > Version {
		return h, fmt.Errorf("%w: it has format %d, this sbxtrace reads up to %d", ErrVersion, h.Version, Version)
	}
	if le.Uint32(b[92:]) != crc32.Checksum(b[:92], castagnoli) {
		return h, fmt.Errorf("checksum of the block's header: %w", ErrCorrupt)
	}
	h.Kind, h.Flags = BlockKind(b[10]), b[11]
	h.Recording, h.Seq = le.Uint64(b[16:]), le.Uint64(b[24:])
	h.Stored, h.Raw = le.Uint32(b[32:]), le.Uint32(b[36:])
	h.First, h.Last, h.Wall = le.Uint64(b[40:]), le.Uint64(b[48:]), int64(le.Uint64(b[56:]))
	h.Events, h.Calls, h.Lost, h.Marks = le.Uint32(b[64:]), le.Uint32(b[68:]), le.Uint64(b[72:]), le.Uint32(b[80:])
	h.payloadSum = le.Uint32(b[84:])
	return h, h.validate(le.Uint32(b[12:]))
}

func (h *Header) validate(size uint32) error {
	most := uint32(maxRaw)
	if h.Kind == BlockIndex {
		most = maxIndexRaw
	}
	switch {
	case h.Version == 0:
		return fmt.Errorf("format version 0: %w", ErrCorrupt)
	case size != headerSize:
		return fmt.Errorf("header of %d bytes: %w", size, ErrCorrupt)
	case h.Stored > most || h.Raw > most:
		return fmt.Errorf("block of %d bytes, %d when decompressed: %w", h.Stored, h.Raw, ErrCorrupt)
	case h.Flags&^flagZstd != 0:
		return fmt.Errorf("unknown flags %#x: %w", h.Flags, ErrCorrupt)
	case h.Flags&flagZstd == 0 && h.Stored != h.Raw:
		return fmt.Errorf("%d bytes stored for %d: %w", h.Stored, h.Raw, ErrCorrupt)
	}
	return nil
}

// Sections of payloads. Each is an id, its length and its bytes; readers skip
// ids that they do not know. Values are stored: append only.
const (
	secStrings    = iota + 1
	secFunctions  // the functions that the block mentions
	secProcesses  // the processes that it mentions
	secFrames     // what the addresses of its stacks mean
	secTasks      // threads and goroutines
	secCheckpoint // state before the block's first item
	secShapes     // what kinds of items there are
	secOps        // the shape of each item
	secRuns       // which task the events belong to
	secTimeLow    // low byte of each event's time difference
	secTimeHigh   // the rest of it
	secSP         // stack pointers that are not predicted
	secArgs       // arguments and return values
	secNodes      // tree of the addresses of stacks
	secStacks     // stacks of events: indices of nodes
	secMisc       // everything else, in the order of the items
	secRows       // BlockRows
)

// Pseudo kinds: items that are no events. Events have kinds below kindPseudo.
const (
	kindPseudo = 0xf0
	itemTick   = 0xf0 // Tick: misc has the time
	itemRegion = 0xf1 // Region: misc has process, bounds, flags
	itemEnd    = 0xf2 // Finish: misc has the time
	itemMark   = 0xf3 // Mark: misc has time, kind, text
)

// How a shape tells the stack pointer.
const (
	spNone     = iota // not at all
	spBelow           // entry: relative to the innermost predicted call
	spOpen            // exit: of the predicted call so many places up
	spExplicit        // in secSP
)

// Fields that an event of a shape has beyond time, task, kind, flags, function
// and stack pointer.
const (
	fieldRet    = 1 << iota // secArgs
	fieldArgs               // secArgs, as many as the shape says
	fieldStack              // secStacks
	fieldUnread             // from here on: secMisc
	fieldChild              // child's thread and process
	fieldComm
	fieldCount
	fieldLoss   // CPU and cause
	fieldTexts  // strings that arguments point to
	fieldKernel // secStacks: the kernel's stack, after the user's
	fieldSample // stack's number, waker's, weight, cut, count, CPU
	fieldStatus
	fieldsAll = 1<<iota - 1
)

// maxPredicted bounds the stack of predicted calls of one lane.
const maxPredicted = 1 << 16
