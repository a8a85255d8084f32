package simulate

import (
	_ "embed"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/stage"
)

// turned is a job that tells its turns; sets are two jobs of a recipe of four turns, two of which hold sets that overlap.
var (
	//go:embed testdata/turned.jsonl
	turned string
	//go:embed testdata/sets.jsonl
	sets string
)

// TestStepsOfTurns: who waits for whom, and in which order steps end.
func TestStepsOfTurns(t *testing.T) {
	turn := func(name string) Turn { return Turn{Name: name, Stage: "encoder", Model: "m"} }
	for _, c := range []struct{ asked, ends, after string }{
		{"e d d v v", "e d v d v", "[] [0] [0 1] [0 1] [0 2]"},
		{"e i d v", "e i d v", "[] [0] [0 1] [0 1 2]"},
		{"e d v v v d v v v", "e d v v v d v v v", "[] [0] [0 1] [0 1] [0 1] [0 1] [0 5] [0 5] [0 5]"}, // three units of a latent
		{"d d a", "d d a", "[] [0] [1]"},                                                               // one of all
	} {
		var turns []Turn
		for name := range strings.FieldsSeq(c.asked) {
			turns = append(turns, turn(name))
		}
		steps := stepsOf(turns)
		var ends, after []string
		for _, i := range ending(steps) {
			ends = append(ends, turns[i].Name)
		}
		for _, s := range steps {
			after = append(after, fmt.Sprint(s.after))
		}
		if strings.Join(ends, " ") != c.ends || strings.Join(after, " ") != c.after {
			t.Errorf("%s: ends %v, after %v", c.asked, ends, after)
		}
	}
}

func TestReadTurnsRefuses(t *testing.T) {
	for _, c := range []struct{ old, new, field string }{
		{`"at_seconds": 5`, `"model": "m"`, "line 1: job.turns"},
		{`"stage": "encoder"`, `"stage": "upscaler"`, "line 1: job.turns[0].stage"},
		{`"model": "n"`, `"model": ""`, "line 1: job.turns[1].model"},
		{`"model": "n"`, `"turn": "` + strings.Repeat("x", maxName+1) + `", "model": "n"`, "line 1: job.turns[1].turn"},
		{`"model": "n"`, `"model": "n", "components": [{"name": "a/unet", "bytes": 1}]`, "line 1: job.turns[1].components"},
		{`"model": "n", "weights_bytes": 40`, `"components": [{"name": "a/unet", "bytes": 1}, {"name": "a/unet", "bytes": 1}]`, "line 1: job.turns[1].components"},
		{`"model": "n", "weights_bytes": 40`, `"components": [{"name": "", "bytes": 1}]`, "line 1: job.turns[1].components"},
		{`"model": "n", "weights_bytes": 40`, `"components": [{"name": "a/unet", "bytes": -1}]`, "line 1: job.turns[1].weights_bytes"},
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
	long := Job{Turns: make([]Turn, maxJobTurns+1)}
	for i := range long.Turns {
		long.Turns[i] = job.Turns[0]
	}
	if err := new(Trace).Add("here", long); stage.ReasonOf(err) != stage.InvalidField {
		t.Errorf("%d turns: %v", len(long.Turns), err)
	}
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
	turn := func(stage string, weights, scratch int64) Turn {
		return Turn{Stage: stage, Model: "m", WeightsBytes: weights, ScratchBytes: scratch, Seconds: 1}
	}
	encoder, denoiser, decoder := turn("encoder", 10, 0), turn("denoiser", 40, 5), turn("decoder", 10, 5)
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
		r, err := Run(trace, Policy{}, Options{BudgetBytes: 45, LoadBytesPerSecond: 10})
		if err != nil || r.Done != 1 || r.Loads != c.loads {
			t.Errorf("%+v: %+v, %v", c.turns, r, err)
		}
	}
}
