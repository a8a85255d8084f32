package stagetest

import (
	"slices"
	"testing"

	"github.com/triptych-serving/triptych/stage"
)

// ContractOfFakes runs the suite against fakes of some kinds, all if there are none, and every turn they take. open gives one
// that Script.Warm gave WarmBudget, wherever it runs.
func ContractOfFakes(t *testing.T, open func(t *testing.T, kind stage.Kind) (stage.Stage, *Script), kinds ...stage.Kind) {
	units := Of(Film, Request(stage.KindDenoiser))
	for name, s := range map[string]Subject{
		"Encode":      {Kind: stage.KindEncoder, Request: Request(stage.KindEncoder), Adapted: StyledRequest(stage.KindEncoder)},
		"Denoise":     {Kind: stage.KindDenoiser, Request: Request(stage.KindDenoiser), Set: ControlRequest(), Units: units},
		"Decode":      {Kind: stage.KindDecoder, Request: Request(stage.KindDecoder)},
		"Styled":      {Kind: stage.KindDenoiser, Request: Request(stage.KindDenoiser), Adapted: StyledRequest(stage.KindDenoiser)},
		"EncodeImage": {Kind: stage.KindDecoder, Request: ImageRequest()},
	} {
		if len(kinds) > 0 && !slices.Contains(kinds, s.Kind) {
			continue
		}
		s.Broken, s.TooLarge, s.Other = Broken, TooLarge, OtherModel
		s.Open = func(t *testing.T) (stage.Stage, *Script) { return open(t, s.Kind) }
		t.Run(name, func(t *testing.T) { Contract(t, s) })
	}
}
