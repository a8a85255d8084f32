package simulate

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/stage"
)

const turned = `{"job": {"at_seconds": 5, "turns": [{"stage": "encoder", "model": "m", "weights_bytes": 10, "seconds": 1}, {"stage": "denoiser", "model": "n", "weights_bytes": 40, "seconds": 1}, {"stage": "decoder", "model": "m", "weights_bytes": 10, "seconds": 1}]}}
`

// TestTurnsAreWhatTheModelWouldTake: a job that describes its turns ends as one whose model has the same.
func TestTurnsAreWhatTheModelWouldTake(t *testing.T) {
	for name, trace := range traces(t) {
		if !strings.HasPrefix(name, "sd15 ") && !strings.HasPrefix(name, "sd15:a,") {
			continue // two mixes are enough
		}
		same := Trace{}
		for i, j := range trace.Jobs {
			if err := same.Add(fmt.Sprint("job ", i), Job{AtSeconds: j.AtSeconds, Turns: trace.turns(j)}); err != nil {
				t.Fatal(err)
			}
		}
		same, err := same.Complete()
		if err != nil {
			t.Fatal(err)
		}
		if len(same.Models) != 0 || same.WeightsBytes() != trace.WeightsBytes() {
			t.Fatalf("%s: %d models, %d of %d bytes", name, len(same.Models), same.WeightsBytes(), trace.WeightsBytes())
		}
		o := Options{BudgetBytes: trace.WeightsBytes() * 6 / 10, LoadBytesPerSecond: 5e8, EvictSeconds: 0.01, OracleWidth: 20}
		want, err := Compare(trace, o)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Compare(same, o); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v\nexpected %+v", name, got, err, want)
		}
	}
}

// TestPartsOfDifferentSize: where one turn keeps less of a part's weights than another, each loads what it keeps, and what
// the oracle says is a bound.
func TestPartsOfDifferentSize(t *testing.T) {
	larger := strings.Replace(strings.Replace(turned, "40", "80", 1), `"at_seconds": 5`, `"at_seconds": 500`, 1)
	trace, err := ReadTrace(strings.NewReader(turned + larger))
	if err != nil {
		t.Fatal(err)
	}
	if trace.WeightsBytes() != 100 {
		t.Errorf("%d bytes of weights", trace.WeightsBytes())
	}
	r, err := Run(trace, Policy{Name: Ours}, Options{BudgetBytes: 100, LoadBytesPerSecond: 10})
	// The larger one is content with the 40 bytes that are there.
	if err != nil || r.Done != 2 || r.ReloadSeconds != 6 || r.OracleSeconds > r.ReloadSeconds || r.OracleExact {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestReadTurnsRefuses(t *testing.T) {
	for _, c := range []struct{ old, new, field string }{
		{`"at_seconds": 5`, `"model": "m"`, "line 1: job.turns"},
		{`{"stage": "encoder", "model": "m", "weights_bytes": 10, "seconds": 1}, `, "", "line 1: job.turns"},
		{`"stage": "denoiser"`, `"stage": "decoder"`, "line 1: job.turns[1].stage"},
		{`"stage": "denoiser"`, `"stage": "encoder"`, "line 1: job.turns[1].stage"},
		{`"stage": "encoder"`, `"stage": "upscaler"`, "line 1: job.turns[0].stage"},
		{`"model": "n"`, `"model": ""`, "line 1: job.turns[1].model"},
		{`"weights_bytes": 40`, `"weights_bytes": -1`, "line 1: job.turns[1].weights_bytes"},
		{`"weights_bytes": 40`, `"scratch_bytes": 1e15`, "line 1: object"},
		{`"weights_bytes": 40`, `"scratch_bytes": 100000000000000`, "line 1: job.turns[1].scratch_bytes"},
		{`"weights_bytes": 40, "seconds": 1`, `"seconds": 1e7`, "line 1: job.turns[1].seconds"},
	} {
		_, err := ReadTrace(strings.NewReader(strings.Replace(turned, c.old, c.new, 1)))
		var e *stage.Error
		if !errors.As(err, &e) || e.Metadata["field"] != c.field || e.Metadata["accepted"] == "" {
			t.Errorf("%s: got %v, expected %q", c.new, err, c.field)
		}
	}
	job := Job{Turns: []Turn{{Stage: "encoder", Model: "m"}, {Stage: "denoiser", Model: "m"}, {Stage: "decoder", Model: "m"}}}
	var all, many Trace
	for i := range maxParts {
		job.Turns[1].Model = fmt.Sprint(i)
		if err := many.Add("here", Job{Turns: append([]Turn(nil), job.Turns...)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := many.Complete(); stage.ReasonOf(err) != stage.InvalidField {
		t.Errorf("%d parts: %v", maxParts+2, err)
	}
	all.described = MaxTurns - 2
	var e *stage.Error
	if err := all.Add("line 7", job); !errors.As(err, &e) || e.Metadata["field"] != "line 7: job.turns" || !strings.Contains(e.Metadata["accepted"], "1000000") {
		t.Errorf("too many turns: %v", err)
	}
}

// TestOrderOfAsking: of two turns that may be asked for at once the first in the list is: here the next denoiser, which
// then finds its weights, instead of the decoder, for which they would have to go.
func TestOrderOfAsking(t *testing.T) {
	encoder, denoiser, decoder := Turn{"encoder", "m", 10, 0, 1}, Turn{"denoiser", "m", 40, 5, 1}, Turn{"decoder", "m", 10, 5, 1}
	for _, c := range []struct {
		turns []Turn
		loads int
	}{
		{[]Turn{encoder, denoiser, decoder, denoiser, decoder}, 5},
		{[]Turn{encoder, denoiser, denoiser, decoder, decoder}, 3},
	} {
		var trace Trace
		if err := trace.Add("here", Job{Turns: c.turns}); err != nil {
			t.Fatal(err)
		}
		trace, err := trace.Complete()
		if err != nil {
			t.Fatal(err)
		}
		r, err := Run(trace, Policy{Name: Ours}, Options{BudgetBytes: 45, LoadBytesPerSecond: 10})
		if err != nil || r.Done != 1 || r.Loads != c.loads {
			t.Errorf("%+v: %+v, %v", c.turns, r, err)
		}
	}
}
