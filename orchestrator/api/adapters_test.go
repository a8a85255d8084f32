package api

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/triptych-serving/triptych/orchestrator/fleet/fleettest"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// styled is a small request with adapters.
func styled(names string) *spec {
	s := small()
	s.Options = map[string]*triptychv1alpha1.OptionValue{stagetest.Styles: optionToProto(stage.TextOption(names))}
	return s
}

// TestAdapters: a request draws with the adapters that an option names; its numbers matter, and their order is told as it was asked for.
func TestAdapters(t *testing.T) {
	r := up(t, nil)
	images := map[string][]byte{}
	for _, names := range []string{"", stagetest.Style, stagetest.Style + ":0.5", stagetest.Detail + ":2," + stagetest.Style} {
		events, err := r.generate(t, styled(names))
		if err != nil {
			t.Fatal(err)
		}
		if got := events[0].GetAccepted().GetSpec().GetOptions()[stagetest.Styles].GetText(); got != names {
			t.Errorf("accepted %q, want %q", got, names)
		}
		for _, e := range events {
			if i := e.GetImageReady(); i != nil {
				images[names] = i.GetData()
			}
		}
		for other, image := range images {
			if other != names && bytes.Equal(image, images[names]) {
				t.Errorf("%q and %q draw the same", other, names)
			}
		}
	}
	works := r.Service(stage.KindDenoiser).Works("denoise")
	if got, want := works[len(works)-1].Components, []string{"tiny/unet", "grain/unet_style", "ink/unet_style"}; !slices.Equal(got, want) {
		t.Errorf("denoised with %q, want %q", got, want)
	}
}

// TestAdaptersRefused: what cannot be used is refused before anything is loaded, and told in the field that names it.
func TestAdaptersRefused(t *testing.T) {
	f := fleettest.New(t, fleettest.Trio()...)
	f.Service(stage.KindEncoder).Edit(func(i *stage.Info) { // has not got Detail
		i.Models = slices.DeleteFunc(i.Models, func(m stage.Model) bool { return m.Name == stagetest.Detail })
	})
	for _, s := range f.Services {
		s.Start()
	}
	f.Known(t)
	r := over(t, f, nil)
	for names, c := range map[string]struct {
		reason stage.Reason
		code   codes.Code
		says   string
	}{
		"oil":                                  {stage.InvalidField, codes.InvalidArgument, "expected one of grain, ink"},
		stagetest.Style + ",oil:0.5":           {stage.InvalidField, codes.InvalidArgument, "expected one of grain, ink"},
		stagetest.Style + "," + stagetest.Film: {stage.InvalidField, codes.InvalidArgument, "it is a model to draw with"},
		stagetest.Style + ":x":                 {stage.InvalidField, codes.InvalidArgument, `"x" behind "ink" is no number`},
		stagetest.Detail:                       {stage.ModelInvalid, codes.FailedPrecondition, `no encoder service has model "grain"`},
	} {
		events, err := r.generate(t, styled(names))
		refused(t, err, c.code, c.reason)
		if m := info(err).GetMetadata(); m["field"] != "options.styles" || !strings.Contains(err.Error(), c.says) || len(events) > 0 {
			t.Errorf("%s: %v, metadata %v after %d events, want it to say %q", names, err, m, len(events), c.says)
		}
	}
	if held := f.Keeper.Snapshot().Components; len(held) > 0 {
		t.Errorf("the stages hold %+v", held)
	}
	_, err := r.generate(t, &spec{Model: stagetest.Style})
	refused(t, err, codes.NotFound, stage.ModelNotFound)
}
