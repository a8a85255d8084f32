// Package recording keeps the news of WatchResidency in a file, and makes a trace for package simulate of the jobs in it.
//
// A recording is JSON lines, each one WatchResidencyResponse as protojson has it, in the order they came. The first is a
// snapshot, as it is of the stream; another one follows where decisions were lost. What is read may come from anybody: every
// line is bounded and checked before it is handed on.
//
// The package may import proto, stage and orchestrator/residency/simulate; it has no clock and does no I/O but to
// the reader or writer it is given.
package recording

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
)

// The bounds of a recording: beyond them it is neither written nor read.
const (
	MaxLineBytes = 4 << 20 // of a message
	MaxMessages  = 2_000_000
	maxName      = 1000    // bytes of a name or address
	maxBytes     = 1 << 44 // of memory
)

// Writer writes a recording.
type Writer struct {
	w        io.Writer
	messages int
}

// NewWriter makes a recording of what is written to w, which gets each message in one Write, so that no message is held back.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Messages is how many were written.
func (w *Writer) Messages() int { return w.messages }

// Write adds a message. INVALID_FIELD when the recording is full; else the error of the writer below.
func (w *Writer) Write(news *triptychv1alpha1.WatchResidencyResponse) error {
	if w.messages == MaxMessages {
		return tooMany(w.messages + 1)
	}
	line, err := protojson.Marshal(news)
	if err != nil {
		return err
	}
	if len(line) >= MaxLineBytes {
		return tooLong(w.messages + 1)
	}
	if _, err := w.w.Write(append(line, '\n')); err != nil {
		return err
	}
	w.messages++
	return nil
}

// Read hands every message and the number of its line to each, until that fails. What is wrong is INVALID_FIELD and
// names line and field; what cannot be read is the reader's error. Fields and kinds of news that are not known are left out.
func Read(r io.Reader, each func(line int, news *triptychv1alpha1.WatchResidencyResponse) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, MaxLineBytes)
	n, messages := 0, 0
	for lines.Scan() {
		n++
		text := bytes.TrimSpace(lines.Bytes())
		if len(text) == 0 {
			continue
		}
		if messages++; messages > MaxMessages {
			return tooMany(n)
		}
		news := &triptychv1alpha1.WatchResidencyResponse{}
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, news); err != nil {
			return invalid(n, "message", string(text), fmt.Sprintf("a WatchResidencyResponse in JSON (%s)", stage.Excerpt(err.Error(), 300)))
		}
		if messages == 1 && news.GetSnapshot() == nil {
			return invalid(n, "message", string(text), "a snapshot, which is the first of a recording")
		}
		if err := check(n, news); err != nil {
			return err
		}
		if err := each(n, news); err != nil {
			return err
		}
	}
	err := lines.Err()
	switch {
	case errors.Is(err, bufio.ErrTooLong):
		return tooLong(n + 1)
	case err == nil && messages == 0:
		return invalid(n+1, "message", "", "a snapshot, which is the first of a recording")
	}
	return err
}

func invalid(line int, field string, value any, accepted string) error {
	return stage.Invalid(stage.InvalidField, fmt.Sprintf("line %d: %s", line, field), value, accepted)
}

func tooLong(line int) error {
	return invalid(line, "length", "more", fmt.Sprintf("lines of less than %d bytes", MaxLineBytes))
}

func tooMany(line int) error {
	return invalid(line, "message", "one more", fmt.Sprintf("a recording of at most %d messages", MaxMessages))
}

// checker keeps the first fault of a message.
type checker struct {
	line int
	err  error
}

func (c *checker) fault(field string, value any, accepted string) {
	if c.err == nil {
		c.err = invalid(c.line, field, value, accepted)
	}
}

// time is of one that must be there; protojson reads no invalid one.
func (c *checker) time(field string, t *timestamppb.Timestamp) {
	if t == nil {
		c.fault(field, "", "a time such as 2026-01-02T03:04:05.678Z")
	}
}

func (c *checker) took(field string, d *durationpb.Duration) {
	if d.AsDuration() < 0 {
		c.fault(field, d.AsDuration(), "a duration from 0s on such as 0.25s")
	}
}

func (c *checker) names(field string, names ...string) {
	for _, n := range names {
		if len(n) > maxName {
			c.fault(field, n, fmt.Sprintf("names of at most %d bytes", maxName))
		}
	}
}

func (c *checker) counts(field string, counts ...int64) {
	for _, n := range counts {
		if n < 0 || n > maxBytes {
			c.fault(field, n, fmt.Sprintf("numbers from 0 to %d", int64(maxBytes)))
		}
	}
}

// check finds what nobody who reads a message should have to expect.
func check(line int, news *triptychv1alpha1.WatchResidencyResponse) error {
	c := &checker{line: line}
	if s := news.GetSnapshot(); s != nil {
		c.time("snapshot.time", s.GetTime())
		c.counts("snapshot.droppedDecisions", s.GetDroppedDecisions())
		for _, d := range s.GetDevices() {
			c.names("snapshot.devices", d.GetDevice())
			c.counts("snapshot.devices", d.GetUsedBytes(), d.GetBudgetBytes(), d.GetPeakBytes(), d.GetForeignBytes())
		}
		for _, v := range s.GetServices() {
			c.names("snapshot.services", v.GetService(), v.GetStage(), v.GetDevice(), v.GetJob(), v.GetModel())
			c.counts("snapshot.services", v.GetScratchBytes())
		}
		for _, k := range s.GetComponents() {
			c.names("snapshot.components", k.GetService(), k.GetModel(), k.GetComponent())
			c.counts("snapshot.components", k.GetWeightsBytes(), k.GetWarmBytes())
		}
		for _, h := range s.GetHosts() {
			c.names("snapshot.hosts", h.GetHost())
			c.counts("snapshot.hosts", h.GetUsedBytes(), h.GetBudgetBytes())
		}
		for _, w := range s.GetWaiting() {
			c.names("snapshot.waiting", w.GetJob(), w.GetStage(), w.GetModel(), w.GetService())
			c.counts("snapshot.waiting", w.GetBytes())
			c.time("snapshot.waiting.since", w.GetSince())
		}
	}
	if d := news.GetDecision(); d != nil {
		e := d.GetEvent()
		c.time("decision.event.time", e.GetTime())
		c.took("decision.event.took", e.GetTook())
		c.names("decision", d.GetJob(), d.GetService())
		c.names("decision.event", append([]string{e.GetStage(), e.GetModel(), e.GetDevice(), e.GetComponent()}, e.GetComponents()...)...)
		c.counts("decision.event", e.GetBytes(), e.GetUsedBytes(), e.GetBudgetBytes(), e.GetWholeBytes(), int64(e.GetTurns()), int64(e.GetTaken()))
	}
	return c.err
}
