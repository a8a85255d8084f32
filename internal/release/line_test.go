package release

import (
	"regexp"
	"testing"
	"time"
)

// bytesOf is a size whose GiB round to hundredths.
func bytesOf(hundredths int64) int64 { return hundredths * gibi / 100 }

// The numbers of SD.Next's own sample: 1.93 GB before and 1.68 after on a card of 24 GB, 510 objects, 0.25 s.
const sample = "GC: utilization={'gpu': 8, 'ram': 4, 'threshold': 0} gc={'collected': 510, 'saved': 0.25} before={'gpu': 1.93, 'ram': 1.2} " +
	"after={'gpu': 1.68, 'ram': 1.0, 'retries': 0, 'oom': 0} device=cuda fn=vae_decode time=0.25"

func TestLine(t *testing.T) {
	before := Reading{Process: bytesOf(193), HostUsed: bytesOf(120), HostTotal: 24 * gibi}
	d := Policy{ThresholdPercent: 80, LowMemory: On}.Decide(Event{Trigger: VAEDecoded}, before, 0)
	d.HostPercent = 4 // of another memory than the card's
	r := Record{
		Decision: d, Triggers: []Trigger{"vae_decode"}, Device: "cuda", Objects: 510,
		Before: before, After: Reading{Process: bytesOf(168), HostUsed: bytesOf(100)}, Took: 251 * time.Millisecond,
	}
	if got := r.String(); got != sample {
		t.Errorf("\n%s, want\n%s", got, sample)
	}
	for name, c := range map[string]struct {
		change func(*Record)
		want   string
	}{
		"several events": {func(r *Record) { r.Triggers = []Trigger{JobBegin, DenoiseDone, JobEnd} }, `fn=job_begin:denoise_done:job_end `},
		"whole numbers":  {func(r *Record) { r.Before.Process, r.After.Process = 2*gibi, gibi }, `'saved': 1.0} before={'gpu': 2.0, .*after={'gpu': 1.0, `},
		"it grew":        {func(r *Record) { r.After.Process = bytesOf(200) }, `'saved': -0.07} `},
		"next to nothing, and no minus": {func(r *Record) {
			r.Before.Process, r.After.Process, r.Took = 1000, 3000, time.Microsecond
		}, `'saved': 0.0} before={'gpu': 0.0, .*time=0.0$`},
		"saved is of the rounded": {func(r *Record) { r.Before.Process, r.After.Process = bytesOf(193)+gibi/210, bytesOf(193)-gibi/210 }, `'saved': 0.0} before={'gpu': 1.93, .*after={'gpu': 1.93, `},
		"refused":                 {func(r *Record) { r.After.Refused = 3 }, `'retries': 0, 'oom': 3} `},
	} {
		changed := r
		c.change(&changed)
		if got := changed.String(); !regexp.MustCompile(c.want).MatchString(got) || !lineFormat.MatchString(got) {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	if got := r.ReleasedBytes(); got != bytesOf(193)-bytesOf(168) {
		t.Errorf("%d bytes were released", got)
	}
}

// lineFormat is what a program that reads the log may rely on.
var lineFormat = regexp.MustCompile(`^GC: utilization=\{'gpu': \d+, 'ram': \d+, 'threshold': \d+\} gc=\{'collected': \d+, 'saved': -?\d+\.\d\d?\} ` +
	`before=\{'gpu': \d+\.\d\d?, 'ram': \d+\.\d\d?\} after=\{'gpu': \d+\.\d\d?, 'ram': \d+\.\d\d?, 'retries': 0, 'oom': \d+\} device=\S+ fn=[a-z_:]+ time=\d+\.\d\d?$`)
