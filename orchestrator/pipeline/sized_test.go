package pipeline_test

import (
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/orchestrator/fleet/fleettest"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// TestLongerPrompt: what a value tells of its size is what the turn that takes it is planned with, and has.
func TestLongerPrompt(t *testing.T) {
	scratch := func(words int, images int) int64 {
		t.Helper()
		r := up(t)
		q := r.of(t, stagetest.Film).with("prompt", stage.TextOption(strings.Repeat("x ", words)))
		q.ImageCount = images
		j := r.good(t, q)
		for _, w := range r.Service(stage.KindDenoiser).Works("denoise") {
			if got := w.Options["tokens"].Int; got != int64(max(8, words)) {
				t.Errorf("%d words: denoised with %d tokens", words, got)
			}
		}
		for _, u := range j.summary.Stages {
			if u.Kind == stage.KindDenoiser {
				return u.ScratchBytes
			}
		}
		return 0
	}
	short, long, several := scratch(3, 1), scratch(20, 1), scratch(20, 3)
	if more := int64(2 * 4 * 6 * (20 - 8)); long != short+more || several != long {
		t.Errorf("scratch of %d bytes, of a longer prompt %d and %d, want %d more", short, long, several, more)
	}

	trio := fleettest.Trio()
	r := over(fleettest.New(t, trio...))
	for _, s := range r.Services {
		if s.Kind == stage.KindDenoiser {
			threads(s, 8)
		}
		s.Start()
	}
	r.Known(t)
	j := r.run(t, r.of(t, stagetest.Film).with("prompt", stage.TextOption(strings.Repeat("x ", 4000))))
	if stage.ReasonOf(j.err) != stage.ModelDoesNotFit || len(r.Service(stage.KindDenoiser).Works("denoise")) > 0 {
		t.Errorf("a prompt that the device has no room for: %v", j.err)
	}
	r.idle(t)
}
