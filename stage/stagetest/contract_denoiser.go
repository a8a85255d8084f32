package stagetest

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/stage"
)

// DenoiserContract checks every sentence of stage.Denoiser. request is a valid one for the
// subject's model with at least four steps, guidance above 1 and nothing else that may be left out.
func DenoiserContract(t *testing.T, subject Subject[stage.Denoiser], request stage.DenoiseRequest) {
	request.Model = subject.Model
	c := denoiserContract{request: request, contract: contract[stage.Denoiser]{
		Subject: subject, kind: stage.KindDenoiser, op: OpDenoise,
		plan: stage.PlanRequest{Model: subject.Model, Batch: 2, LatentHeight: request.LatentHeight, LatentWidth: request.LatentWidth},
		work: func(ctx context.Context, s stage.Denoiser, model string) (any, error) {
			req := request
			req.Model = model
			return s.Denoise(ctx, req, stage.DenoiseObserver{})
		},
	}}
	c.run(t)
	t.Run("Observed", c.testObserved)
	t.Run("Seed", c.testSeed)
	t.Run("Resume", c.testResume)
	t.Run("NotObserved", c.testNotObserved)
	t.Run("CancelledByObserver", c.testCancelledByObserver)
	t.Run("Invalid", c.testInvalid)
	t.Run("InvalidResume", c.testInvalidResume)
}

type denoiserContract struct {
	contract[stage.Denoiser]
	request stage.DenoiseRequest
}

// diary is what an observer saw of a run.
type diary struct {
	busy        atomic.Bool
	overlapped  bool
	events      []string // kinds, in order
	evaluations []int
	sampler     string
	done        []int
	previews    []stage.Latent
	previewed   []int
	checkpoints []stage.Checkpoint
}

func (d *diary) enter(kind string) func() {
	if !d.busy.CompareAndSwap(false, true) {
		d.overlapped = true
	}
	d.events = append(d.events, kind)
	return func() { d.busy.Store(false) }
}

func (d *diary) observer() stage.DenoiseObserver {
	return stage.DenoiseObserver{
		Ready: func(evaluations int, sampler string) {
			defer d.enter("ready")()
			d.evaluations, d.sampler = append(d.evaluations, evaluations), sampler
		},
		Progress: func(done, evaluations int) {
			defer d.enter("progress")()
			d.done, d.evaluations = append(d.done, done), append(d.evaluations, evaluations)
		},
		Preview: func(done int, estimate stage.Latent) {
			defer d.enter("preview")()
			d.previewed, d.previews = append(d.previewed, done), append(d.previews, estimate)
		},
		Checkpoint: func(c stage.Checkpoint) {
			defer d.enter("checkpoint")()
			d.checkpoints = append(d.checkpoints, c)
		},
	}
}

// check checks what has to hold of every run that began after so many evaluations.
func (d *diary) check(t *testing.T, begun int) {
	t.Helper()
	if d.overlapped {
		t.Errorf("the observer was called from two goroutines at once")
	}
	if len(d.events) == 0 || d.events[0] != "ready" || slices.Contains(d.events[1:], "ready") {
		t.Fatalf("ready is not the first and only the first event: %v", d.events)
	}
	total := d.evaluations[0]
	if slices.Min(d.evaluations) != total || slices.Max(d.evaluations) != total {
		t.Errorf("the number of evaluations changes: %v", d.evaluations)
	}
	if n := len(d.done); n == 0 || d.done[0] <= begun || d.done[n-1] != total || !increasing(d.done) {
		t.Errorf("progress of evaluations %d to %d: %v", begun+1, total, d.done)
	}
	if !slices.IsSorted(d.previewed) || (len(d.previewed) > 0 && d.previewed[len(d.previewed)-1] > total) {
		t.Errorf("previews after %v of %d evaluations", d.previewed, total)
	}
}

func increasing(v []int) bool {
	for i := range v[1:] {
		if v[i] >= v[i+1] {
			return false
		}
	}
	return true
}

func (c denoiserContract) testObserved(t *testing.T) {
	s, _ := c.loaded(t)
	m := find(t, s, c.Model)
	shape := []int{1, m.LatentChannels, c.request.LatentHeight, c.request.LatentWidth}
	for _, sampler := range append([]string{""}, m.Samplers...) {
		req := c.request
		req.Sampler, req.PreviewEveryNSteps, req.CheckpointEveryNSteps = sampler, 2, 1
		var d diary
		latent, err := s.Denoise(patient(t), req, d.observer())
		if err != nil {
			t.Fatalf("Denoise with sampler %q: %v", sampler, err)
		}
		d.check(t, 0)
		wantTensor(t, "the latent", latent.Tensor, shape...)
		if expected := sampler; (expected != "" && d.sampler != expected) || (expected == "" && d.sampler != m.DefaultSampler) {
			t.Errorf("sampler %q is ready as %q, the default is %q", sampler, d.sampler, m.DefaultSampler)
		}
		if d.evaluations[0] < req.Steps {
			t.Errorf("%d evaluations for %d steps", d.evaluations[0], req.Steps)
		}
		if len(d.previews) == 0 || len(d.checkpoints) == 0 {
			t.Errorf("%d previews and %d checkpoints of %d steps", len(d.previews), len(d.checkpoints), req.Steps)
		}
		for _, p := range d.previews {
			wantTensor(t, "a preview", p.Tensor, shape...)
		}
	}
}

func (c denoiserContract) testSeed(t *testing.T) {
	s, _ := c.loaded(t)
	latent := func(seed uint64) string {
		req := c.request
		req.Seed = seed
		l, err := s.Denoise(patient(t), req, stage.DenoiseObserver{})
		if err != nil {
			t.Fatalf("Denoise: %v", err)
		}
		return string(l.Data)
	}
	first := latent(math.MaxUint64)
	if latent(math.MaxUint64) != first {
		t.Errorf("the same seed gives different latents")
	}
	if latent(7) == first {
		t.Errorf("different seeds give the same latents")
	}
}

// testResume resumes on another stage from every checkpoint.
func (c denoiserContract) testResume(t *testing.T) {
	s, _ := c.loaded(t)
	replica, _ := c.loaded(t)
	for _, sampler := range find(t, s, c.Model).Samplers {
		req := c.request
		req.Sampler, req.CheckpointEveryNSteps = sampler, 1
		var whole diary
		expected, err := s.Denoise(patient(t), req, whole.observer())
		if err != nil {
			t.Fatalf("Denoise: %v", err)
		}
		for _, checkpoint := range whole.checkpoints {
			if checkpoint.Step < 1 || checkpoint.Step > whole.evaluations[0] || len(checkpoint.Tensors) == 0 {
				t.Fatalf("a checkpoint after %d evaluations has %d tensors", checkpoint.Step, len(checkpoint.Tensors))
			}
			if checkpoint.Step == whole.evaluations[0] {
				continue
			}
			rest := req
			rest.Resume = &checkpoint
			var resumed diary
			got, err := replica.Denoise(patient(t), rest, resumed.observer())
			if err != nil {
				t.Fatalf("Denoise from step %d of %s: %v", checkpoint.Step, sampler, err)
			}
			resumed.check(t, checkpoint.Step)
			if resumed.evaluations[0] != whole.evaluations[0] {
				t.Errorf("resumed at %d, %s has %d evaluations in all, before %d", checkpoint.Step, sampler, resumed.evaluations[0], whole.evaluations[0])
			}
			if string(got.Data) != string(expected.Data) {
				t.Errorf("resumed at %d, %s gives another latent", checkpoint.Step, sampler)
			}
		}
	}
}

func (c denoiserContract) testNotObserved(t *testing.T) {
	s, _ := c.loaded(t)
	plain, err := s.Denoise(patient(t), c.request, stage.DenoiseObserver{})
	if err != nil {
		t.Fatalf("Denoise: %v", err)
	}
	req := c.request
	req.PreviewEveryNSteps, req.CheckpointEveryNSteps = 1, 1
	unseen, err := s.Denoise(patient(t), req, stage.DenoiseObserver{})
	if err != nil {
		t.Fatalf("Denoise with previews and checkpoints for nobody: %v", err)
	}
	same(t, "latents with and without previews and checkpoints", plain, unseen)
	var d diary
	if _, err := s.Denoise(patient(t), c.request, d.observer()); err != nil {
		t.Fatalf("Denoise: %v", err)
	}
	if len(d.previews)+len(d.checkpoints) > 0 {
		t.Errorf("%d previews and %d checkpoints that nobody asked for", len(d.previews), len(d.checkpoints))
	}
}

func (c denoiserContract) testCancelledByObserver(t *testing.T) {
	s, _ := c.loaded(t)
	before := info(t, s).UsedBytes
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	calls := 0
	_, err := s.Denoise(ctx, c.request, stage.DenoiseObserver{Progress: func(int, int) {
		calls++
		cancel()
	}})
	if !errors.Is(err, context.Canceled) || calls > 2 {
		t.Errorf("cancelled after the first evaluation: %v after %d", err, calls)
	}
	if err := s.Settle(patient(t), c.Model); err != nil {
		t.Errorf("Settle: %v", err)
	}
	if used := info(t, s).UsedBytes; used != before {
		t.Errorf("%d bytes are used when cancelled work has settled, %d before it", used, before)
	}
}

func (c denoiserContract) testInvalid(t *testing.T) {
	s, _ := c.loaded(t)
	shape := c.request.Conditioning.States.Shape
	conditioning := func(shape ...int) stage.Conditioning {
		n, _ := tensor.Shape(shape).Elems()
		return stage.Conditioning{States: tensor.FromF32(make([]float32, n), shape...)}
	}
	for _, bad := range []struct {
		name    string
		change  func(*stage.DenoiseRequest)
		reasons []stage.Reason
	}{
		{"no steps", func(r *stage.DenoiseRequest) { r.Steps = 0 }, []stage.Reason{stage.InvalidField}},
		{"negative steps", func(r *stage.DenoiseRequest) { r.Steps = -1 }, []stage.Reason{stage.InvalidField}},
		{"too many steps", func(r *stage.DenoiseRequest) { r.Steps = 1 << 40 }, []stage.Reason{stage.InvalidField}},
		{"no height", func(r *stage.DenoiseRequest) { r.LatentHeight = 0 }, []stage.Reason{stage.SizeUnsupported}},
		{"negative width", func(r *stage.DenoiseRequest) { r.LatentWidth = -8 }, []stage.Reason{stage.SizeUnsupported}},
		{"huge height", func(r *stage.DenoiseRequest) { r.LatentHeight = 1 << 40 }, []stage.Reason{stage.SizeUnsupported}},
		{"guidance of no number", func(r *stage.DenoiseRequest) { r.GuidanceScale = float32(math.NaN()) }, []stage.Reason{stage.InvalidField}},
		{"infinite guidance", func(r *stage.DenoiseRequest) { r.GuidanceScale = float32(math.Inf(1)) }, []stage.Reason{stage.InvalidField}},
		{"negative previews", func(r *stage.DenoiseRequest) { r.PreviewEveryNSteps = -1 }, []stage.Reason{stage.InvalidField}},
		{"negative checkpoints", func(r *stage.DenoiseRequest) { r.CheckpointEveryNSteps = -1 }, []stage.Reason{stage.InvalidField}},
		{"no conditioning", func(r *stage.DenoiseRequest) { r.Conditioning = stage.Conditioning{} }, []stage.Reason{stage.TensorInvalid, stage.InvalidField}},
		{"flat conditioning", func(r *stage.DenoiseRequest) { r.Conditioning = conditioning(shape[1], shape[2]) }, []stage.Reason{stage.TensorInvalid, stage.InvalidField}},
		{"narrow conditioning", func(r *stage.DenoiseRequest) { r.Conditioning = conditioning(shape[0], shape[1], shape[2]-1) }, []stage.Reason{stage.TensorInvalid, stage.InvalidField}},
		{"three prompts", func(r *stage.DenoiseRequest) { r.Conditioning = conditioning(3, shape[1], shape[2]) }, []stage.Reason{stage.TensorInvalid, stage.InvalidField}},
		{"one prompt with guidance", func(r *stage.DenoiseRequest) { r.Conditioning = conditioning(1, shape[1], shape[2]) }, []stage.Reason{stage.TensorInvalid, stage.InvalidField}},
		{"conditioning without its bytes", func(r *stage.DenoiseRequest) {
			r.Conditioning.States.Data = r.Conditioning.States.Data[:len(r.Conditioning.States.Data)-4]
		}, []stage.Reason{stage.TensorInvalid, stage.InvalidField}},
	} {
		t.Run(strings.ReplaceAll(bad.name, " ", "_"), func(t *testing.T) {
			req := c.request
			bad.change(&req)
			_, err := s.Denoise(patient(t), req, (&diary{}).observer())
			want(t, "Denoise with "+bad.name, err, bad.reasons...)
		})
	}
	m := find(t, s, c.Model)
	req := c.request
	req.Sampler = "no-such-sampler"
	_, err := s.Denoise(patient(t), req, stage.DenoiseObserver{})
	if e := want(t, "Denoise with an unknown sampler", err, stage.SamplerUnsupported); !strings.Contains(e.Metadata["accepted"], m.DefaultSampler) {
		t.Errorf("metadata accepted = %q does not list %q", e.Metadata["accepted"], m.DefaultSampler)
	}
	if m.LatentMultiple > 1 {
		req = c.request
		req.LatentWidth++
		_, err := s.Denoise(patient(t), req, stage.DenoiseObserver{})
		want(t, "Denoise with a width that is no multiple", err, stage.SizeUnsupported)
	}
}

func (c denoiserContract) testInvalidResume(t *testing.T) {
	s, _ := c.loaded(t)
	req := c.request
	req.CheckpointEveryNSteps = 1
	var d diary
	if _, err := s.Denoise(patient(t), req, d.observer()); err != nil || len(d.checkpoints) == 0 {
		t.Fatalf("Denoise: %d checkpoints, %v", len(d.checkpoints), err)
	}
	good := d.checkpoints[0]
	misnamed := slices.Clone(good.Tensors)
	misnamed[0].Name = "nothing_known"
	small := slices.Clone(good.Tensors)
	small[0].Tensor = tensor.FromF32(make([]float32, 1), 1, 1, 1, 1)
	for name, checkpoint := range map[string]stage.Checkpoint{
		"negative": {Step: -1, Tensors: good.Tensors},
		"beyond":   {Step: d.evaluations[0] + 1, Tensors: good.Tensors},
		"empty":    {Step: good.Step},
		"misnamed": {Step: good.Step, Tensors: misnamed},
		"small":    {Step: good.Step, Tensors: small},
	} {
		t.Run(name, func(t *testing.T) {
			bad := c.request
			bad.Resume = &checkpoint
			_, err := s.Denoise(patient(t), bad, stage.DenoiseObserver{})
			want(t, "Denoise from a checkpoint that is "+name, err, stage.TensorInvalid, stage.InvalidField)
		})
	}
}
