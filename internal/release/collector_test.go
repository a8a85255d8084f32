package release

import (
	"bytes"
	"fmt"
	"log/slog"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
)

// rig is a collector whose memory is made up, and its log.
type rig struct {
	*Collector
	log     *bytes.Buffer
	reading Reading
	freed   int
}

func newRig(p Policy) *rig {
	r := &rig{log: &bytes.Buffer{}, reading: Reading{Process: 10 * mebi, HostUsed: gibi, HostTotal: 64 * gibi}}
	r.Collector = New(Options{
		Policy: p, Device: "cpu:0", Read: func() Reading { return r.reading },
		Logger: slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	r.free = func() { r.freed++; r.reading.Process -= 3 * mebi }
	return r
}

// told is what was logged since the last call: "fn (reason)" of each collection, "-trigger" of each event that did not
// collect.
func (r *rig) told() (lines []string) {
	for line := range strings.Lines(r.log.String()) {
		if m := regexp.MustCompile(`fn=(\S+) .*reason=("[a-z ]+"|[a-z]+)`).FindStringSubmatch(line); m != nil {
			lines = append(lines, m[1]+" ("+strings.Trim(m[2], `"`)+")")
		} else if m := regexp.MustCompile(`trigger=(\S+)`).FindStringSubmatch(line); m != nil {
			lines = append(lines, "-"+m[1])
		}
	}
	r.log.Reset()
	return lines
}

var (
	encode  = call{done: []Event{{Trigger: PromptEncoded}}, job: true}
	denoise = call{done: []Event{{Trigger: DenoiseDone}}, job: true}
	load    = call{done: []Event{{Trigger: ModelChanged, Force: true}}, workFollows: true}
	evict   = call{done: []Event{{Trigger: ModelChanged, Force: true}}}
)

func TestCollector(t *testing.T) {
	always, never := Policy{0, Off}, Policy{100, Off}
	for name, c := range map[string]struct {
		policy Policy
		run    func(*rig)
		want   []string
	}{
		"every event is evaluated once":                {never, func(r *rig) { r.begin(encode); r.end(encode, true) }, []string{"-job_begin", "-prompt_encoded", "-job_end"}},
		"one collection serves what asked for it":      {always, func(r *rig) { r.begin(encode); r.end(encode, true) }, []string{"job_begin:prompt_encoded:job_end (threshold)"}},
		"what failed is not done, and its job is over": {always, func(r *rig) { r.begin(denoise); r.end(denoise, false) }, []string{"job_begin:job_end (threshold)"}},
		"all of what is done is evaluated, and what failed is not": {never, func(r *rig) {
			controlled := call{done: []Event{{Trigger: DenoiseDone}, {Trigger: "controlnet_done"}}, job: true}
			r.begin(controlled)
			r.end(controlled, true)
			r.begin(controlled)
			r.end(controlled, false)
		}, []string{"-job_begin", "-denoise_done", "-controlnet_done", "-job_end", "-job_begin", "-job_end"}},
		"not beside other work": {always, func(r *rig) {
			r.begin(denoise)
			r.begin(denoise)
			r.end(denoise, true)
			if r.freed > 0 {
				t.Error("collected while a denoising runs")
			}
			r.end(denoise, true)
		}, []string{"job_begin:denoise_done:denoise_done:job_end (threshold)"}},
		"not beside a load": {always, func(r *rig) {
			r.begin(denoise)
			r.begin(load)
			r.end(denoise, true)
			if r.freed > 0 {
				t.Error("collected while a load runs")
			}
			r.end(load, true)
		}, nil},
		"a load's waits for the work": {never, func(r *rig) {
			r.begin(load)
			r.end(load, true)
			r.begin(encode)
			if r.freed > 0 {
				t.Error("collected between load and work")
			}
			r.end(encode, true)
		}, []string{"-job_begin", "-prompt_encoded", "-job_end", "model_changed (forced)"}},
		"an eviction's does not": {never, func(r *rig) { r.begin(evict); r.end(evict, true) }, []string{"model_changed (forced)"}},
		"the weightiest reason is told": {
			always, func(r *rig) { r.begin(evict); r.begin(encode); r.end(encode, true); r.end(evict, true) },
			[]string{"job_begin:prompt_encoded:job_end:model_changed (forced)"},
		},
		"an allocation was refused": {never, func(r *rig) {
			r.begin(denoise)
			r.reading.Refused++
			r.end(denoise, false)
		}, []string{"-job_begin", "-job_end", "out_of_memory (out of memory)"}},
		"a load was refused, and no work follows": {never, func(r *rig) {
			r.begin(load)
			r.reading.Refused++
			r.end(load, false)
		}, []string{"out_of_memory (out of memory)"}},
		"it was told once": {never, func(r *rig) {
			r.reading.Refused = 5
			r.begin(denoise) // it was refused before
			r.end(denoise, true)
			r.begin(denoise)
			r.end(denoise, true)
		}, []string{"-denoise_done", "-job_end", "job_begin (out of memory)", "-job_begin", "-denoise_done", "-job_end"}},
		"nothing is left over": {always, func(r *rig) {
			for range 2 {
				r.begin(encode)
				r.end(encode, true)
			}
		}, []string{"job_begin:prompt_encoded:job_end (threshold)", "job_begin:prompt_encoded:job_end (threshold)"}},
	} {
		r := newRig(c.policy)
		c.run(r)
		got := r.told()
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		collections := 0
		for _, line := range c.want {
			if !strings.HasPrefix(line, "-") {
				collections++
			}
		}
		if r.freed != collections {
			t.Errorf("%s: %d collections, %d lines", name, r.freed, collections)
		}
	}
}

// What is asked for during a collection gets one of its own, by the goroutine that collects.
func TestCollectorOneAtATime(t *testing.T) {
	r := newRig(Policy{0, Off})
	started, goOn, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	r.free = func() {
		r.freed++
		if r.freed == 1 {
			close(started)
			<-goOn
		}
	}
	go func() {
		defer close(done)
		r.begin(encode)
		r.end(encode, true)
	}()
	<-started
	r.begin(encode) // is not held up
	r.end(encode, true)
	if r.freed != 1 {
		t.Errorf("%d collections at once", r.freed)
	}
	close(goOn)
	<-done
	if want := []string{"job_begin:prompt_encoded:job_end (threshold)", "job_begin:prompt_encoded:job_end (threshold)"}; !slices.Equal(r.told(), want) || r.freed != 2 {
		t.Errorf("%d collections", r.freed)
	}
}

func TestCollectorMeasures(t *testing.T) {
	r := newRig(Policy{80, On})
	r.begin(encode)
	r.end(encode, true)
	line := r.log.String()
	for _, want := range []string{"level=INFO", `'threshold': 0} gc={'collected': `, " device=cpu:0 fn=job_begin:prompt_encoded:job_end time=0.0", fmt.Sprintf("released_bytes=%d", 3*mebi), " seconds="} {
		if !strings.Contains(line, want) {
			t.Errorf("no %s in %s", want, line)
		}
	}
	r.begin(encode)
	r.free = func() { r.reading.Process += mebi } // somebody else's
	r.end(encode, true)
	if times, bytes := r.Released(); times != 2 || bytes != 3*mebi {
		t.Errorf("%d collections of %d bytes are counted, want 2 of %d", times, bytes, 3*mebi)
	}
	if n := strings.Count(line, "\n"); n != 1 {
		t.Errorf("%d lines: %s", n, line)
	}
}

// Go gives its pages back when it is asked to, which is what all of this is about.
func TestCollectorReleases(t *testing.T) {
	r := newRig(Policy{0, Off})
	host := NewHost()
	r.Read = func() (now Reading) { host.Read(&now); return now }
	r.free = debug.FreeOSMemory
	garbage := make([]byte, 64*mebi)
	for i := range garbage {
		garbage[i] = 1
	}
	r.begin(encode)
	if now := r.Read(); now.Process == 0 {
		t.Skip("the system does not tell")
	}
	garbage = nil //nolint:ineffassign,wastedassign // else it is no garbage
	r.end(encode, true)
	m := regexp.MustCompile(`'collected': (\d+).*released_bytes=(-?\d+)`).FindStringSubmatch(r.log.String())
	var objects, released int64
	if _, err := fmt.Sscan(m[1]+" "+m[2], &objects, &released); err != nil || released < 60*mebi || objects < 1 {
		t.Errorf("%d objects and %d bytes of %d (%v): %s", objects, released, 64*mebi, err, r.log)
	}
}

// What a collection takes with the garbage of a decode of 512x512.
func BenchmarkCollect(b *testing.B) {
	c := New(Options{Policy: Policy{0, Off}, Device: "cpu:0", Logger: slog.New(slog.DiscardHandler), Read: func() Reading { return Reading{} }})
	for b.Loop() {
		b.StopTimer()
		for range 6 {
			garbage := make([]byte, mebi)
			for i := range garbage {
				garbage[i] = 1
			}
		}
		b.StartTimer()
		c.collect(Record{})
	}
}

// TestCollectorTells: only a collection that freed something is news.
func TestCollectorTells(t *testing.T) {
	for freed, level := range map[int64]string{-mebi: "DEBUG", 0: "DEBUG", mebi - 1: "DEBUG", mebi: "INFO"} {
		r := newRig(Policy{0, Off})
		r.free = func() { r.reading.Process -= freed }
		r.begin(encode)
		r.end(encode, true)
		if line := r.log.String(); !strings.Contains(line, "level="+level+` msg="GC:`) {
			t.Errorf("%d bytes freed: %s, want level %s", freed, line, level)
		}
	}
}
