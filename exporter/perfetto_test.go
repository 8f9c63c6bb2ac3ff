package exporter

import (
	"context"
	"encoding/json"
	"maps"
	"strconv"
	"testing"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

func TestPerfetto(t *testing.T) {
	for _, seed := range []uint64{testSeed, testSeed + 1} {
		testPerfetto(t, seed)
	}
}

func testPerfetto(t *testing.T, testSeed uint64) {
	compiler := protocompile.Compiler{Resolver: &protocompile.SourceResolver{ImportPaths: []string{"testdata"}}}
	files, err := compiler.Compile(context.Background(), "perfetto.proto")
	if err != nil {
		t.Fatal(err)
	}
	data := export(t, FormatPerfetto, testSeed, testSteps, shopOptions())
	msg := dynamicpb.NewMessage(files[0].Messages().ByName("Trace"))
	if err := proto.Unmarshal(data, msg); err != nil {
		t.Fatal(err)
	}
	noUnknown(t, msg)
	text, err := protojson.Marshal(msg)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct{ Packet []perfPacket }
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	got := newReference().counted
	names, tracks := map[string]string{}, map[string]perfDescriptor{}
	type slice struct {
		name string
		ts   uint64
	}
	open := map[string][]slice{}
	began, instants := 0, 0
	for i, p := range doc.Packet {
		if p.TrustedPacketSequenceID != 1 {
			t.Fatalf("packet %d is of sequence %d", i, p.TrustedPacketSequenceID)
		}
		if d := p.TrackDescriptor; d != nil {
			if d.ParentUUID != "" && tracks[d.ParentUUID].UUID == "" {
				t.Fatalf("track %s has a parent that is not there: %s", d.UUID, d.ParentUUID)
			}
			tracks[d.UUID] = *d
		}
		if p.InternedData != nil {
			for _, n := range p.InternedData.EventNames {
				names[n.IID] = n.Name
			}
		}
		e := p.TrackEvent
		if e == nil {
			continue
		}
		ts, _ := strconv.ParseUint(p.Timestamp, 10, 64)
		if p.SequenceFlags&2 == 0 || tracks[e.TrackUUID].UUID == "" {
			t.Fatalf("packet %d: flags %d, track %q", i, p.SequenceFlags, e.TrackUUID)
		}
		stack := open[e.TrackUUID]
		switch e.Type {
		case "TYPE_SLICE_BEGIN":
			began++
			if names[e.NameIID] == "" {
				t.Fatalf("packet %d has a name that was not sent: %s", i, e.NameIID)
			}
			open[e.TrackUUID] = append(stack, slice{names[e.NameIID], ts})
		case "TYPE_SLICE_END":
			s := stack[len(stack)-1]
			open[e.TrackUUID] = stack[:len(stack)-1]
			got.calls++
			got.total += ts - s.ts
			got.perFunc[s.name]++
			got.timePerFunc[s.name] += ts - s.ts
		case "TYPE_INSTANT":
			instants++
		}
	}
	want := utf8Names(expected(testSeed, testSteps))
	got.self = want.self
	if testSeed%2 == 0 {
		if !maps.Equal(got.timePerFunc, want.timePerFunc) {
			t.Errorf("time per function is %v, want %v", got.timePerFunc, want.timePerFunc)
		}
	} else {
		want.total = got.total // detached functions' slices end with their callees'
	}
	same(t, &got, want)
	if began != want.entered || instants == 0 {
		t.Errorf("%d slices began, want %d; %d instants", began, want.entered, instants)
	}
	described := map[string]bool{}
	for _, d := range tracks {
		switch {
		case d.Process != nil:
			described["process "+d.Process.ProcessName] = true
		case d.Thread != nil:
			described["thread "+d.Thread.ThreadName] = true
		default:
			described[d.Name] = true
		}
	}
	for _, name := range []string{"process shop", "thread worker", "goroutine 17", "sbxtrace"} {
		if !described[name] {
			t.Errorf("no track %q among %v", name, described)
		}
	}
	if c := doc.Packet[0].ClockSnapshot; c == nil || c.PrimaryTraceClock != "BUILTIN_CLOCK_MONOTONIC" || len(c.Clocks) != 2 {
		t.Errorf("the first packet has the clocks %+v", c)
	}
}

type perfPacket struct {
	Timestamp               string
	TrustedPacketSequenceID int
	SequenceFlags           int
	TrackDescriptor         *perfDescriptor
	TrackEvent              *struct{ Type, NameIID, TrackUUID string }
	InternedData            *struct {
		EventNames []struct{ IID, Name string }
	}
	ClockSnapshot *struct {
		Clocks            []any
		PrimaryTraceClock string
	}
}

type perfDescriptor struct {
	UUID, ParentUUID, Name string
	Process                *struct{ ProcessName string }
	Thread                 *struct{ ThreadName string }
}

// noUnknown fails for fields that the schema does not have.
func noUnknown(t *testing.T, m protoreflect.Message) {
	t.Helper()
	if len(m.GetUnknown()) > 0 {
		t.Fatalf("%s has fields that the schema does not have: %x", m.Descriptor().FullName(), m.GetUnknown())
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				noUnknown(t, v.List().Get(i).Message())
			}
		default:
			noUnknown(t, v.Message())
		}
		return true
	})
}
