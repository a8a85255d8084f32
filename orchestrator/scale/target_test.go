package scale

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/triptych-serving/triptych/stage"
)

func TestParseTarget(t *testing.T) {
	with := func(pairs ...string) map[string]string {
		m := map[string]string{"scalerAddress": "triptych:7450"}
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i]] = pairs[i+1]
		}
		return m
	}
	for name, c := range map[string]struct {
		metadata map[string]string
		want     Target
		refused  string // the key
	}{
		"the least":         {with("stage", "denoiser"), Target{stage.KindDenoiser, nil, defaultSeconds}, ""},
		"all":               {with("stage", "encoder", "models", "sd15, sdxl", "targetSeconds", "2.5", "enableTLS", "true"), Target{stage.KindEncoder, []string{"sd15", "sdxl"}, 2.5}, ""},
		"no models":         {with("stage", "decoder", "models", " ", "targetSeconds", ""), Target{stage.KindDecoder, nil, defaultSeconds}, ""},
		"no stage":          {with(), Target{}, "stage"},
		"no such stage":     {with("stage", "Denoiser"), Target{}, "stage"},
		"an empty model":    {with("stage", "denoiser", "models", "a,,b"), Target{}, "models"},
		"too many models":   {with("stage", "denoiser", "models", strings.Repeat("a,", maxModels)+"a"), Target{}, "models"},
		"too long a model":  {with("stage", "denoiser", "models", strings.Repeat("a", maxName+1)), Target{}, "models"},
		"too long a list":   {with("stage", "denoiser", "models", strings.Repeat(" ", maxModels*(maxName+2))+"a"), Target{}, "models"},
		"no number":         {with("stage", "denoiser", "targetSeconds", "30s"), Target{}, "targetSeconds"},
		"not a number":      {with("stage", "denoiser", "targetSeconds", "NaN"), Target{}, "targetSeconds"},
		"infinitely many":   {with("stage", "denoiser", "targetSeconds", "Inf"), Target{}, "targetSeconds"},
		"no seconds":        {with("stage", "denoiser", "targetSeconds", "0"), Target{}, "targetSeconds"},
		"negative":          {with("stage", "denoiser", "targetSeconds", "-30"), Target{}, "targetSeconds"},
		"a typo in the key": {with("stage", "denoiser", "targetSecond", "30"), Target{}, "targetSecond"},
	} {
		got, err := ParseTarget(c.metadata)
		if c.refused == "" {
			if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
				t.Errorf("%s: %v %s", name, err, diff)
			}
			continue
		}
		e := (*stage.Error)(nil)
		if !errors.As(err, &e) || e.Reason != stage.InvalidField || e.Metadata["field"] != "scalerMetadata."+c.refused || e.Metadata["accepted"] == "" {
			t.Errorf("%s: %#v", name, err)
		}
	}
}

// FuzzParseTarget: whatever the metadata are, what is accepted can be computed with.
func FuzzParseTarget(f *testing.F) {
	f.Add("denoiser", "a,b", "30", "enableTLS")
	f.Add("encoder", "", "1e3", "targetSeconds")
	f.Add("decoder", " , ", "0x1p-2", "stage")
	f.Fuzz(func(t *testing.T, kind, models, seconds, key string) {
		got, err := ParseTarget(map[string]string{key: "x", "stage": kind, "models": models, "targetSeconds": seconds})
		if err != nil {
			if stage.ReasonOf(err) != stage.InvalidField || len(err.Error()) > 2000 {
				t.Errorf("refused with %d bytes: %v", len(err.Error()), err)
			}
			return
		}
		if got.Stage.String() != kind || !(got.Seconds >= minSeconds && got.Seconds <= maxTarget) || len(got.Models) > maxModels {
			t.Errorf("accepted as %+v", got)
		}
		for _, m := range got.Models {
			if m == "" || len(m) > maxName || !got.wants(m, "") {
				t.Errorf("model %q of %+v", m, got)
			}
		}
	})
}
