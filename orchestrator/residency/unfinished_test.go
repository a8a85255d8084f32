package residency

import (
	"fmt"
	"slices"
	"testing"

	"github.com/triptych-serving/triptych/stage"
)

// TestTurnsInTheRecord: grants tell the turns that are left and the whole weights, also of work that is done again because
// it failed; what a job did not announce has none.
func TestTurnsInTheRecord(t *testing.T) {
	m := newChecked(t)
	need := func(k stage.Kind) Need {
		n := single(k, "m", 10, 5)
		n.Footprints[""].Weights[0].WholeBytes = 30
		return n
	}
	denoise, decode := need(stage.KindDenoiser), need(stage.KindDecoder)
	var told []string
	step := func(in input) {
		m.step(in)
		for _, e := range m.events {
			switch {
			case e.Action == Grant:
				told = append(told, fmt.Sprintf("%v: %d turns, %d taken, %d of %d bytes", e.Kind, e.Turns, e.Taken, e.Bytes, e.WholeBytes))
			case e.Class == WorkDone:
				told = append(told, fmt.Sprintf("%v: unfinished %v", e.Kind, e.Unfinished))
			case e.Turns != 0 || e.Taken != 0 || e.WholeBytes != 0 || e.Unfinished:
				t.Errorf("%+v", e)
			}
		}
	}
	for _, k := range []stage.Kind{stage.KindDenoiser, stage.KindDecoder} {
		step(joined{
			holds: holds{stage: StageID(k.String()), resident: []stage.ResidentComponent{{Name: named(k, "m"), WeightsBytes: 10}}},
			kind:  k, device: Device{"h", "cpu", 100}, names: []string{named(k, "m")},
		})
	}
	step(announced{"job", []Need{denoise, decode}})
	step(asked{1, "job", denoise, false, false})
	step(asked{2, "job", decode, true, false})
	step(released{2})
	step(found{1, unfinished, ""})
	step(released{1})
	step(asked{3, "job", denoise, false, false})
	step(released{3})
	step(asked{4, "job", decode, false, false})
	step(found{9, unfinished, ""}) // nobody's
	want := []string{
		"denoiser: 2 turns, 0 taken, 15 of 30 bytes",
		"decoder: 0 turns, 0 taken, 15 of 30 bytes", "decoder: unfinished false",
		"denoiser: unfinished true", "denoiser: 2 turns, 0 taken, 15 of 30 bytes", "denoiser: unfinished false",
		"decoder: 1 turns, 1 taken, 15 of 30 bytes",
	}
	if !slices.Equal(told, want) {
		t.Errorf("the record tells\n%q, expected\n%q", told, want)
	}
}
