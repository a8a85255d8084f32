package residency

import (
	"errors"
	"math"
	"testing"

	"github.com/triptych-serving/triptych/stage"
)

// TestPolicyCheck: what makes no sense is refused, and names the flag.
func TestPolicyCheck(t *testing.T) {
	if err := (Policy{}).Check(); err != nil {
		t.Error(err)
	}
	encoder := Selector{Kind: stage.KindEncoder}
	for field, policies := range map[string][]Policy{
		"wait-factor":     {{WaitFactor: 0.5}, {WaitFactor: -1}, {WaitFactor: math.NaN()}, {WaitFactor: math.Inf(1)}},
		"min-residency":   {{MinResidency: -1}},
		"idle-ttl":        {{IdleTTL: -1}},
		"high-watermark":  {{HighWatermark: 1.1}, {HighWatermark: -0.1}, {HighWatermark: math.NaN()}},
		"low-watermark":   {{LowWatermark: 0.1}, {LowWatermark: 0.8, HighWatermark: 0.7}, {LowWatermark: -0.1}, {LowWatermark: math.NaN()}},
		"evict-after-use": {{Never: []Selector{encoder}, AfterUse: []Selector{{stage.KindEncoder, "m"}}}, {Never: []Selector{{stage.KindEncoder, "m"}}, AfterUse: []Selector{encoder}}},
	} {
		for _, p := range policies {
			var e *stage.Error
			if err := p.Check(); !errors.As(err, &e) || e.Reason != stage.InvalidField || e.Metadata["field"] != field {
				t.Errorf("%s: %+v gives %v", field, p, err)
			}
		}
	}
}

func TestParseSelector(t *testing.T) {
	for _, text := range []string{"encoder", "denoiser:starter", "decoder:sd15:anime"} {
		if s, err := ParseSelector(text); err != nil || s.String() != text {
			t.Errorf("%q is %v, %v", text, s, err)
		}
	}
	for _, text := range []string{"", "unet", ":starter", "encoder:", "Encoder"} {
		if s, err := ParseSelector(text); err == nil {
			t.Errorf("%q is %v", text, s)
		}
	}
}
