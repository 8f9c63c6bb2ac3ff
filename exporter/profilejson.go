package exporter

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strconv"

	"github.com/google/pprof/profile"
)

// The lines of a profile in JSON; docs/json.md describes them.

type jsonProfile struct {
	Type        string          `json:"type"`
	SampleTypes []jsonValueType `json:"sample_types"`
	Default     string          `json:"default"`
	Period      int64           `json:"period,omitempty"`
	PeriodType  *jsonValueType  `json:"period_type,omitempty"`
	Time        int64           `json:"time,omitempty"`
	Duration    int64           `json:"duration,omitempty"`
	Samples     int             `json:"samples"`
	Comments    []string        `json:"comments,omitempty"`
}

type jsonValueType struct {
	Type string `json:"type"`
	Unit string `json:"unit"`
}

type jsonMapping struct {
	Type    string `json:"type"`
	Module  string `json:"module"`
	Path    string `json:"path"`
	BuildID string `json:"build_id,omitempty"`
	Start   string `json:"start"`
	Limit   string `json:"limit"`
	Offset  string `json:"offset"`
}

type jsonSample struct {
	Type   string         `json:"type"`
	Values []int64        `json:"values"`
	Frames []jsonFrame    `json:"frames"`
	Labels map[string]any `json:"labels,omitempty"`
	Base   bool           `json:"base,omitempty"`
}

type jsonFrame struct {
	Func    string `json:"func"`
	Module  string `json:"module"`
	File    string `json:"file,omitempty"`
	Line    int64  `json:"line,omitempty"`
	Address string `json:"address,omitempty"`
	Inlined bool   `json:"inlined,omitempty"`
}

func writeJSON(w io.Writer, p *profile.Profile) error {
	out := bufio.NewWriterSize(w, 64<<10)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	err := enc.Encode(profileLine(p))
	for _, m := range p.Mapping {
		if err == nil {
			err = enc.Encode(jsonMapping{
				Type: "mapping", Module: moduleName(m), Path: m.File, BuildID: m.BuildID,
				Start: hex(m.Start), Limit: hex(m.Limit), Offset: hex(m.Offset),
			})
		}
	}
	frames := make(map[*profile.Location][]jsonFrame)
	for _, s := range p.Sample {
		if err == nil {
			err = enc.Encode(sampleLine(s, frames))
		}
	}
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	return nil
}

func profileLine(p *profile.Profile) *jsonProfile {
	o := &jsonProfile{
		Type: "profile", Period: p.Period, Time: p.TimeNanos, Duration: p.DurationNanos,
		Samples: len(p.Sample), Comments: p.Comments, Default: p.DefaultSampleType,
	}
	for _, t := range p.SampleType {
		o.SampleTypes = append(o.SampleTypes, jsonValueType{t.Type, t.Unit})
	}
	if o.Default == "" {
		o.Default = p.SampleType[len(p.SampleType)-1].Type
	}
	if t := p.PeriodType; t != nil && t.Type != "" {
		o.PeriodType = &jsonValueType{t.Type, t.Unit}
	}
	return o
}

// sampleLine makes the line of a sample. frames keeps the frames of locations
// for the next ones.
func sampleLine(s *profile.Sample, frames map[*profile.Location][]jsonFrame) *jsonSample {
	o := &jsonSample{Type: "sample", Values: s.Value, Frames: []jsonFrame{}, Labels: jsonLabels(s), Base: s.DiffBaseSample()}
	if o.Base {
		o.Values = make([]int64, len(s.Value))
		for i, v := range s.Value {
			o.Values[i] = -v
		}
	}
	for _, l := range s.Location {
		if l == nil {
			continue
		}
		of, ok := frames[l]
		if !ok {
			of = jsonFrames(l)
			frames[l] = of
		}
		// A bound on what one sample of a made-up file can become.
		if len(o.Frames)+len(of) > maxDepth {
			break
		}
		o.Frames = append(o.Frames, of...)
	}
	return o
}

// jsonFrames are the frames of a location, the innermost first.
func jsonFrames(l *profile.Location) []jsonFrame {
	module, address := moduleName(l.Mapping), ""
	if l.Address != 0 {
		address = hex(l.Address)
	}
	var out []jsonFrame
	for i := range l.Line {
		line := &l.Line[i]
		if line.Function == nil {
			continue
		}
		f := jsonFrame{
			Func: functionName(line.Function), Module: module, File: line.Function.Filename, Line: line.Line,
			Address: address, Inlined: i+1 < len(l.Line),
		}
		if f.Func == "" {
			f.Func = addressName(l)
		}
		out = append(out, f)
	}
	if len(out) == 0 {
		out = []jsonFrame{{Func: addressName(l), Module: module, Address: address}}
	}
	return out
}

// jsonLabels are the labels of a sample: strings and numbers, lists of them
// where there are several of a name.
func jsonLabels(s *profile.Sample) map[string]any {
	labels := make(map[string]any, len(s.Label)+len(s.NumLabel))
	for name, v := range s.NumLabel {
		labels[name] = oneOrMore(v)
	}
	for name, v := range s.Label {
		if name != baseLabel {
			labels[name] = oneOrMore(v)
		}
	}
	return labels
}

func oneOrMore[T any](values []T) any {
	if len(values) == 1 {
		return values[0]
	}
	return values
}

func hex(n uint64) string { return "0x" + strconv.FormatUint(n, 16) }
