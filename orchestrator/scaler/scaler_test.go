package scaler

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/orchestrator/scale"
	"github.com/triptych-serving/triptych/proto/externalscaler"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is the scaler over a snapshot that tests change, behind gRPC.
type rig struct {
	externalscaler.ExternalScalerClient
	meter  *scale.Meter
	ending chan struct{}

	mu       sync.Mutex
	snapshot residency.Snapshot
	refusal  error
}

func up(t *testing.T) *rig {
	t.Helper()
	r := &rig{ending: make(chan struct{})}
	r.meter = scale.NewMeter(func() residency.Snapshot {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.snapshot
	}, func() []scale.Unplanned { return nil })
	s := New(Options{Meter: r.meter, Ending: r.ending, Logger: slog.New(slog.DiscardHandler), Refuse: func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.refusal
	}})
	r.ExternalScalerClient = externalscaler.NewExternalScalerClient(stagetest.Connect(t, func(to grpc.ServiceRegistrar) { s.Register(to) }))
	return r
}

// change changes what there is to do, and tells of it.
func (r *rig) change(f func(*rig)) {
	r.mu.Lock()
	f(r)
	r.mu.Unlock()
	r.meter.Changed()
}

// wait has a denoiser wait for so many evaluations of a model.
func (r *rig) wait(model string, evaluations int) {
	r.change(func(r *rig) {
		r.snapshot.Waiting = append(r.snapshot.Waiting, residency.Waiter{Job: residency.JobID(model), Need: residency.Need{
			Kind: stage.KindDenoiser, Work: residency.Workload{Model: model, Evaluations: evaluations},
		}})
	})
}

func (r *rig) finish() { r.change(func(r *rig) { r.snapshot = residency.Snapshot{} }) }

func ref(pairs ...string) *externalscaler.ScaledObjectRef {
	m := map[string]string{"scalerAddress": "triptych:7450"}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return &externalscaler.ScaledObjectRef{Name: "denoiser", Namespace: "default", ScalerMetadata: m}
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// TestMetrics: the target and the value are in seconds, rounded up for those who read no fractions.
func TestMetrics(t *testing.T) {
	r := up(t)
	for _, model := range []string{"m", "n"} {
		r.meter.Decided(residency.Event{
			Class: residency.WorkDone, Kind: stage.KindDenoiser, Took: 5 * time.Second, Work: residency.Workload{Model: model, Evaluations: 5},
		})
	}
	r.wait("m", 42)
	r.wait("n", 3)
	spec, err := r.GetMetricSpec(soon(t), ref("stage", "denoiser", "targetSeconds", "22.5"))
	if err != nil || len(spec.GetMetricSpecs()) != 1 {
		t.Fatalf("%v, %v", spec, err)
	}
	if s := spec.GetMetricSpecs()[0]; s.GetMetricName() != Metric || s.GetTargetSize() != 23 || s.GetTargetSizeFloat() != 22.5 {
		t.Errorf("the spec is %v", s)
	}
	for _, c := range []struct {
		ref     *externalscaler.ScaledObjectRef
		seconds float64
		whole   int64
	}{
		{ref("stage", "denoiser", "targetSeconds", "22.5"), 22.5 + 3, 26}, // a job fills one replica
		{ref("stage", "denoiser", "targetSeconds", "60"), 45, 45},
		{ref("stage", "denoiser", "models", "n"), 3, 3},
		{ref("stage", "decoder"), 0, 0},
	} {
		got, err := r.GetMetrics(soon(t), &externalscaler.GetMetricsRequest{ScaledObjectRef: c.ref, MetricName: Metric})
		if err != nil || len(got.GetMetricValues()) != 1 {
			t.Fatalf("%v, %v", got, err)
		}
		if v := got.GetMetricValues()[0]; v.GetMetricName() != Metric || v.GetMetricValueFloat() != c.seconds || v.GetMetricValue() != c.whole {
			t.Errorf("%v: %v, want %v and %d", c.ref.GetScalerMetadata(), v, c.seconds, c.whole)
		}
		active, err := r.IsActive(soon(t), c.ref)
		if err != nil || active.GetResult() != (c.seconds > 0) {
			t.Errorf("%v: %v, %v", c.ref.GetScalerMetadata(), active, err)
		}
	}
}

// TestStream: the activity is told at once, and again with each change, and no more often.
func TestStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := up(t)
		stream, err := r.StreamIsActive(t.Context(), ref("stage", "denoiser", "models", "m"))
		if err != nil {
			t.Fatal(err)
		}
		expect := func(what string, want bool, most time.Duration) {
			t.Helper()
			begun := time.Now()
			got, err := stream.Recv()
			if err != nil || got.GetResult() != want {
				t.Fatalf("%s: %v, %v", what, got, err)
			}
			if took := time.Since(begun); took > most {
				t.Errorf("%s it took %v, want %v at most", what, took, most)
			}
		}
		expect("at first", false, 0)
		time.Sleep(time.Minute) // nothing is told meanwhile
		r.wait("n", 1)          // another pool's
		synctest.Wait()
		r.wait("m", 1)
		expect("when a request waits", true, pause)
		time.Sleep(time.Minute)
		r.wait("m", 1)
		synctest.Wait()
		r.finish()
		expect("at the end", false, pause)
		time.Sleep(time.Minute)
		r.wait("m", 1)
		expect("after a time of rest", true, 0)
		r.mu.Lock()
		r.snapshot = residency.Snapshot{}
		r.mu.Unlock() // and nobody tells
		expect("what nobody tells", false, pause+lookEvery)
		close(r.ending)
		if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("a server that shuts down ended the stream with %v", err)
		}
	})
}

// TestStandby: an orchestrator without the stages refuses, and ends streams without an error, since KEDA comes back the later, the
// more often one has failed.
func TestStandby(t *testing.T) {
	r := up(t)
	stream, err := r.StreamIsActive(soon(t), ref("stage", "denoiser"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	r.change(func(r *rig) { r.refusal = stage.Errorf(stage.StageOwned, "another orchestrator has the stages") })
	if got, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the stream went on with %v, %v", got, err)
	}
	_, active := r.IsActive(soon(t), ref("stage", "denoiser"))
	_, metrics := r.GetMetrics(soon(t), &externalscaler.GetMetricsRequest{ScaledObjectRef: ref("stage", "denoiser"), MetricName: Metric})
	again, err := r.StreamIsActive(soon(t), ref("stage", "denoiser"))
	if err == nil {
		_, err = again.Recv()
	}
	for name, err := range map[string]error{"IsActive": active, "GetMetrics": metrics, "StreamIsActive": err} {
		if status.Code(err) != codes.Unavailable {
			t.Errorf("%s: %v, want UNAVAILABLE", name, err)
		}
	}
	if _, err := r.GetMetricSpec(soon(t), ref("stage", "denoiser")); err != nil {
		t.Errorf("the spec, which is the same everywhere: %v", err)
	}
}

// TestRefusals: wrong metadata are INVALID_ARGUMENT that names the key, its value and what is accepted.
func TestRefusals(t *testing.T) {
	r := up(t)
	for _, c := range []struct {
		ref   *externalscaler.ScaledObjectRef
		words []string
	}{
		{nil, []string{"scalerMetadata.stage", `""`, "encoder, denoiser or decoder"}},
		{ref("stage", "unet"), []string{"scalerMetadata.stage", `"unet"`, "encoder, denoiser or decoder"}},
		{ref("stage", "denoiser", "targetSeconds", "-1"), []string{"scalerMetadata.targetSeconds", `"-1"`, "0.1 to 86400"}},
		{ref("stage", "denoiser", "model", "m"), []string{"scalerMetadata.model", `"m"`, "models"}},
	} {
		_, spec := r.GetMetricSpec(soon(t), c.ref)
		_, active := r.IsActive(soon(t), c.ref)
		_, metrics := r.GetMetrics(soon(t), &externalscaler.GetMetricsRequest{ScaledObjectRef: c.ref, MetricName: Metric})
		stream, err := r.StreamIsActive(soon(t), c.ref)
		if err == nil {
			_, err = stream.Recv()
		}
		for _, err := range []error{spec, active, metrics, err} {
			if status.Code(err) != codes.InvalidArgument {
				t.Errorf("%v: %v", c.ref, err)
			}
			for _, word := range c.words {
				if !strings.Contains(status.Convert(err).Message(), word) {
					t.Errorf("%v: %v does not tell %s", c.ref, err, word)
				}
			}
		}
	}
	_, err := r.GetMetrics(soon(t), &externalscaler.GetMetricsRequest{ScaledObjectRef: ref("stage", "denoiser"), MetricName: "s0-backlog_seconds"})
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), Metric) {
		t.Errorf("another metric: %v", err)
	}
}

// TestStreamsAreBounded: one too many is told to come back.
func TestStreamsAreBounded(t *testing.T) {
	r := up(t)
	ctx, cancel := context.WithCancel(soon(t))
	defer cancel()
	for i := range maxStreams + 1 {
		stream, err := r.StreamIsActive(ctx, ref("stage", "denoiser"))
		if err == nil {
			_, err = stream.Recv()
		}
		want := codes.OK
		if i == maxStreams {
			want = codes.ResourceExhausted
		}
		if status.Code(err) != want {
			t.Fatalf("stream %d: %v", i, err)
		}
	}
}
