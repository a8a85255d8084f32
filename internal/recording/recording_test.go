package recording

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/triptych-serving/triptych/internal/timeline"
	"github.com/triptych-serving/triptych/orchestrator/residency/simulate"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
)

// TestRecordings replays recordings: one made with `triptych trace --record` of a budget of 25 MiB, and some of a few lines,
// which are written short:
//
//	snapshot SECOND [dropped=N] [working=JOB] [waiting=JOB@SECOND] [resident=BYTES] [services=N] [budget=BYTES]
//	SECOND ACTION[/CLASS] STAGE MODEL JOB REQUEST [bytes=N] [took=SECONDS] [turns=N] [taken=N] [whole=N] [unfinished]
//
// Instead of a model there may be a component, or a set of them such as m/unet+x/lora. A job of - is none. Any other line is as it is. -rewrite writes what is expected.
func TestRecordings(t *testing.T) {
	datadriven.RunTest(t, "testdata/recordings.txt", func(t *testing.T, d *datadriven.TestData) string {
		text := long(t, d.Input)
		if d.Cmd == "file" {
			data, err := os.ReadFile(d.CmdArgs[0].Key)
			if err != nil {
				t.Fatal(err)
			}
			text = string(data)
		}
		var jobs Jobs
		if err := Read(strings.NewReader(text), jobs.Add); err != nil {
			return strings.ReplaceAll(err.Error(), "\u00a0", " ") + "\n" // protojson has either space, from build to build
		}
		trace, found, err := jobs.Trace()
		if err != nil {
			return err.Error() + "\n"
		}
		var out strings.Builder
		fmt.Fprintln(&out, found)
		if err := trace.Write(&out); err != nil {
			t.Fatal(err)
		}
		return out.String()
	})
}

// long writes messages out.
func long(t *testing.T, short string) string {
	t.Helper()
	var out bytes.Buffer
	w := NewWriter(&out)
	for line := range strings.Lines(short) {
		words := strings.Fields(line)
		news := &triptychv1alpha1.WatchResidencyResponse{}
		switch {
		case len(words) > 0 && words[0] == "snapshot":
			news.News = &triptychv1alpha1.WatchResidencyResponse_Snapshot{Snapshot: snapshot(t, words[1:])}
		case len(words) > 5 && !strings.HasPrefix(line, "{"):
			news.News = &triptychv1alpha1.WatchResidencyResponse_Decision{Decision: decision(t, words)}
		default:
			out.WriteString(line)
			continue
		}
		if err := w.Write(news); err != nil {
			t.Fatal(err)
		}
	}
	return out.String()
}

func snapshot(t *testing.T, words []string) *triptychv1alpha1.ResidencySnapshot {
	s := &triptychv1alpha1.ResidencySnapshot{Time: at(t, words[0])}
	for _, word := range words[1:] {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "dropped":
			s.DroppedDecisions = int64(number(t, value))
		case "working":
			s.Services = append(s.Services, &triptychv1alpha1.ServiceUse{Service: "s", Job: value, Request: 99, Working: true})
		case "waiting":
			job, since, _ := strings.Cut(value, "@")
			s.Waiting = append(s.Waiting, &triptychv1alpha1.WaitingRequest{Job: job, Since: at(t, since)})
		case "resident":
			s.Components = append(s.Components, &triptychv1alpha1.ComponentUse{WeightsBytes: int64(number(t, value))})
		case "services":
			for range int(number(t, value)) {
				s.Services = append(s.Services, &triptychv1alpha1.ServiceUse{Service: "s"})
			}
		case "budget":
			s.Devices = append(s.Devices, &triptychv1alpha1.DeviceUse{Device: "h/cpu", BudgetBytes: int64(number(t, value))})
		default:
			t.Fatalf("unknown word %q", word)
		}
	}
	return s
}

func decision(t *testing.T, words []string) *triptychv1alpha1.ResidencyDecision {
	action, class, _ := strings.Cut(words[1], "/")
	e := &triptychv1alpha1.ResidencyEvent{
		Time: at(t, words[0]), Stage: words[2], Model: words[3],
		Action: triptychv1alpha1.ResidencyEvent_Action(triptychv1alpha1.ResidencyEvent_Action_value["ACTION_"+strings.ToUpper(action)]),
		Class:  triptychv1alpha1.ResidencyEvent_Class(triptychv1alpha1.ResidencyEvent_Class_value["CLASS_"+strings.ToUpper(class)]),
	}
	if names := strings.Split(words[3], "+"); strings.Contains(words[3], "/") {
		e.Model, e.Component = "", names[0]
		if e.Action == triptychv1alpha1.ResidencyEvent_ACTION_GRANT || e.Class == triptychv1alpha1.ResidencyEvent_CLASS_WORK_DONE || e.Action == triptychv1alpha1.ResidencyEvent_ACTION_RESERVE && e.Class == 0 {
			e.Components = names
		}
	}
	for _, word := range words[6:] {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "bytes":
			e.Bytes = int64(number(t, value))
		case "took":
			e.Took = durationpb.New(time.Duration(number(t, value) * float64(time.Second)))
		case "turns":
			e.Turns = int32(number(t, value))
		case "taken":
			e.Taken = int32(number(t, value))
		case "whole":
			e.WholeBytes = int64(number(t, value))
		case "unfinished":
			e.Unfinished = true
		default:
			t.Fatalf("unknown word %q", word)
		}
	}
	return &triptychv1alpha1.ResidencyDecision{Event: e, Service: words[2], Job: strings.Trim(words[4], "-"), Request: uint64(number(t, words[5]))}
}

func number(t *testing.T, text string) float64 {
	x, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func at(t *testing.T, second string) *timestamppb.Timestamp {
	return timestamppb.New(time.Unix(0, 0).Add(time.Duration(number(t, second) * float64(time.Second))))
}

// TestWhatIsWrittenIsRead: byte for byte the same messages, each in one write.
func TestWhatIsWrittenIsRead(t *testing.T) {
	data, err := os.ReadFile("testdata/session.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	var first, again []*triptychv1alpha1.WatchResidencyResponse
	read := func(to *[]*triptychv1alpha1.WatchResidencyResponse) func(int, *triptychv1alpha1.WatchResidencyResponse) error {
		return func(line int, news *triptychv1alpha1.WatchResidencyResponse) error {
			*to = append(*to, news)
			if line != len(*to) {
				t.Errorf("message %d is on line %d", len(*to), line)
			}
			return nil
		}
	}
	if err := Read(iotest.OneByteReader(bytes.NewReader(data)), read(&first)); err != nil {
		t.Fatal(err)
	}
	out := &counting{}
	w := NewWriter(out)
	for _, news := range first {
		if err := w.Write(news); err != nil {
			t.Fatal(err)
		}
	}
	if out.writes != len(first) || w.Messages() != len(first) || !bytes.HasSuffix(out.Bytes(), []byte("\n")) {
		t.Errorf("%d messages were written in %d writes", w.Messages(), out.writes)
	}
	if err := Read(out, read(&again)); err != nil {
		t.Fatal(err)
	}
	for i := range first {
		if !proto.Equal(first[i], again[i]) {
			t.Errorf("%v became %v", first[i], again[i])
		}
	}
}

// counting counts writes.
type counting struct {
	bytes.Buffer
	writes int
}

func (c *counting) Write(p []byte) (int, error) {
	c.writes++
	return c.Buffer.Write(p)
}

// TestBounds: what is longer or more than may be read is not written either, and says what may.
func TestBounds(t *testing.T) {
	refused := func(err error, field, accepted string) {
		t.Helper()
		var e *stage.Error
		if !errors.As(err, &e) || e.Reason != stage.InvalidField || e.Metadata["field"] != field || !strings.Contains(e.Metadata["accepted"], accepted) {
			t.Errorf("got %v, expected %q and %q", err, field, accepted)
		}
	}
	ignore := func(int, *triptychv1alpha1.WatchResidencyResponse) error { return nil }
	begin := &triptychv1alpha1.WatchResidencyResponse{News: &triptychv1alpha1.WatchResidencyResponse_Snapshot{Snapshot: snapshot(t, []string{"1"})}}
	large := proto.CloneOf(begin)
	large.GetSnapshot().Devices = []*triptychv1alpha1.DeviceUse{{Device: strings.Repeat("x", MaxLineBytes)}}
	var out bytes.Buffer
	w := NewWriter(&out)
	if err := w.Write(begin); err != nil {
		t.Fatal(err)
	}
	refused(w.Write(large), "line 2: length", fmt.Sprint(MaxLineBytes))
	refused(Read(io.MultiReader(bytes.NewReader(out.Bytes()), strings.NewReader(strings.Repeat(" ", MaxLineBytes+1))), ignore), "line 2: length", fmt.Sprint(MaxLineBytes))
	w.messages = MaxMessages
	refused(w.Write(begin), fmt.Sprintf("line %d: message", MaxMessages+1), fmt.Sprint(MaxMessages))

	jobs := Jobs{grants: simulate.MaxTurns}
	one := "snapshot 0\n1 grant encoder m a 1 turns=3\n"
	refused(Read(strings.NewReader(long(t, one)), jobs.Add), "line 2: decision", fmt.Sprint(simulate.MaxTurns))
	jobs = Jobs{arrived: make([]*job, simulate.MaxJobs)}
	for i := range jobs.arrived {
		jobs.arrived[i] = &job{}
	}
	refused(Read(strings.NewReader(long(t, one)), jobs.Add), "line 2: decision.job", fmt.Sprint(simulate.MaxJobs))

	if err := Read(iotest.ErrReader(io.ErrUnexpectedEOF), ignore); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the reader's error is %v", err)
	}
}

// FuzzRecording: whatever is read is within bounds, and so is its trace; what is refused names a line; and every recording can
// be drawn.
func FuzzRecording(f *testing.F) {
	data, err := os.ReadFile("testdata/session.jsonl")
	if err != nil {
		f.Fatal(err)
	}
	for n := range bytes.Count(data, []byte("\n")) { // from its beginning to each line
		if n%10 == 0 {
			f.Add(data[:len(data)-len(bytes.Join(bytes.SplitAfter(data, []byte("\n"))[n+1:], nil))])
		}
	}
	f.Add([]byte(`{"snapshot":{"time":"0001-01-01T00:00:00Z"}}` + "\n" + `{"decision":{"event":{"time":"9999-12-31T23:59:59Z","took":"315576000000s","action":"ACTION_GRANT","stage":"encoder","turns":3},"request":1,"job":"a"}}`))
	f.Add([]byte(`{"decision":{"event":{"usedBytes":"` + strings.Repeat("9", 20_000) + `"}}}`)) // of which the decoder's error tells all
	f.Fuzz(func(t *testing.T, text []byte) {
		var (
			jobs Jobs
			seen timeline.Timeline
		)
		err := Read(bytes.NewReader(text), func(line int, news *triptychv1alpha1.WatchResidencyResponse) error {
			seen.Add(news)
			return jobs.Add(line, news)
		})
		if err == nil {
			trace, found, traceErr := jobs.Trace()
			if err = traceErr; err == nil && (len(trace.Jobs) != found.Replayed || found.Replayed+found.CutAtBegin+found.CutAtEnd+found.CutByLoss+found.GivenUp != found.Jobs) {
				t.Fatalf("%d jobs and %+v", len(trace.Jobs), found)
			}
		}
		var e *stage.Error
		if err != nil && (!errors.As(err, &e) || e.Reason != stage.InvalidField || len(err.Error()) > 10_000) {
			t.Fatalf("%v is no refusal", err)
		}
		var out bytes.Buffer
		if err := seen.Write(&out, time.Unix(0, 0)); err != nil || !json.Valid(out.Bytes()) {
			t.Fatalf("%v: %s", err, &out)
		}
	})
}
