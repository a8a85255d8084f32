package api

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/triptych-serving/triptych/orchestrator/fleet/fleettest"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
)

// TestOtherNames: requests have choices by other names, which may say a further option, and are told by our names.
func TestOtherNames(t *testing.T) {
	f := fleettest.New(t, fleettest.Trio()...)
	f.Service(stage.KindDenoiser).Edit(func(i *stage.Info) {
		for _, r := range recipes(i) {
			option(*r, "sampler").Aliases = map[string]stage.Alias{"k_heun": {Choice: "heun"}, "heun in jpeg": {Choice: "heun", Others: map[string]string{"format": "jpeg"}}}
		}
	})
	r := over(t, f, nil)
	for _, s := range f.Services {
		s.Start()
	}
	f.Known(t)
	for _, c := range []struct{ sampler, format, want, wantFormat string }{
		{"", "", "euler", "png"},
		{"HEUN", "", "heun", "png"},
		{"K_Heun", "png", "heun", "png"},
		{"Heun in JPEG", "", "heun", "jpeg"},
		{"Heun in JPEG", "jpeg", "heun", "jpeg"},
	} {
		s := small()
		s.Sampler, s.Output = c.sampler, &triptychv1alpha1.OutputOptions{Format: c.format}
		events, err := r.generate(t, s)
		if err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
		if got := events[0].GetAccepted().GetSpec(); got.GetSampler() != c.want || got.GetOutput().GetFormat() != c.wantFormat {
			t.Errorf("%+v: %s in %s", c, got.GetSampler(), got.GetOutput().GetFormat())
		}
	}
	s := small()
	s.Sampler, s.Output = "Heun in JPEG", &triptychv1alpha1.OutputOptions{Format: "png"}
	_, err := r.generate(t, s)
	refused(t, err, codes.InvalidArgument, stage.InvalidField)
	if m := info(err).GetMetadata(); m["field"] != "output.format" || !strings.Contains(m["accepted"], `jpeg, as sampler "Heun in JPEG" says`) {
		t.Errorf("refused with %v", m)
	}
}
