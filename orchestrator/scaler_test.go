package orchestrator

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/triptych-serving/triptych/proto/externalscaler"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// absent hangs up on everybody until it is there.
type absent struct {
	net.Listener
	there chan struct{}
}

func (l absent) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		select {
		case <-l.there:
			return conn, err
		default:
		}
		if err != nil {
			return nil, err
		}
		_ = conn.Close()
	}
}

// later serves a fake denoiser that is there from come to leave.
func later(t *testing.T, script *stagetest.Script) (address string, come, leave func()) {
	t.Helper()
	lis := absent{listen(t), make(chan struct{})}
	server := serve(t, stage.KindDenoiser, stagetest.New(stage.KindDenoiser, script), lis)
	return lis.Addr().String(), func() { close(lis.there) }, server.Stop
}

// run runs an orchestrator until the test ends and connects to its listeners.
func run(t *testing.T, o Options, to ...net.Listener) (conns []*grpc.ClientConn) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- Run(ctx, to[0], o) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	for _, lis := range to {
		conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		conns = append(conns, conn)
	}
	return conns
}

// TestScalerWakesAStage: a request that finds no denoiser makes the denoiser active within a second, and gives seconds of work for
// it. A denoiser comes and takes the work; when that has ended there is none. The same holds once it has been there and has left.
func TestScalerWakesAStage(t *testing.T) {
	var script stagetest.Script
	o := options()
	o.Stages, o.Scaler = stages(t, nil), listen(t)
	address, come, leave := later(t, &script)
	o.Stages[stage.KindDenoiser] = []string{address}
	conns := run(t, o, listen(t), o.Scaler)
	client, keda := triptychv1alpha1.NewGenerationServiceClient(conns[0]), externalscaler.NewExternalScalerClient(conns[1])

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	of := func(kind stage.Kind) *externalscaler.ScaledObjectRef {
		return &externalscaler.ScaledObjectRef{Name: kind.String(), ScalerMetadata: map[string]string{"scalerAddress": "x", "stage": kind.String()}}
	}
	seconds := func() float64 {
		r, err := keda.GetMetrics(ctx, &externalscaler.GetMetricsRequest{ScaledObjectRef: of(stage.KindDenoiser), MetricName: "backlog_seconds"})
		if err != nil {
			t.Fatal(err)
		}
		return r.GetMetricValues()[0].GetMetricValueFloat()
	}
	stream, err := keda.StreamIsActive(ctx, of(stage.KindDenoiser))
	if err != nil {
		t.Fatal(err)
	}
	active := func() bool {
		r, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return r.GetResult()
	}
	if active() || seconds() != 0 {
		t.Error("there is work before any request")
	}
	request := func(ctx context.Context) <-chan error {
		begun, made := time.Now(), make(chan error, 1)
		go func() {
			call, err := client.Generate(ctx, &triptychv1alpha1.GenerateRequest{Spec: &triptychv1alpha1.GenerationSpec{Model: stagetest.Model, Prompt: "a boat"}})
			for err == nil {
				_, err = call.Recv()
			}
			made <- err
		}()
		if !active() {
			t.Error("the request is no work for the denoiser")
		}
		if took := time.Since(begun); took > time.Second {
			t.Errorf("the denoiser was active %v after the request", took)
		}
		if s := seconds(); s <= 0 {
			t.Errorf("%v seconds of work while the request waits", s)
		}
		return made
	}
	gate := script.Hold(stagetest.OpDenoise, 3)
	made := request(ctx)
	come()
	<-gate.Entered()
	if r, err := keda.IsActive(ctx, of(stage.KindDenoiser)); err != nil || !r.GetResult() {
		t.Errorf("while the denoiser works it is not active: %v, %v", r, err)
	}
	if r, err := keda.IsActive(ctx, of(stage.KindDecoder)); err != nil || !r.GetResult() {
		t.Errorf("the decoder, which is needed next, is not active: %v, %v", r, err)
	}
	gate.Release()
	if err := <-made; !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if active() {
		t.Error("the denoiser was told to be active twice")
	}
	if s := seconds(); s != 0 {
		t.Errorf("%v seconds of work at the end", s)
	}
	leave()
	again, give := context.WithCancel(ctx)
	made = request(again)
	give()
	if err := <-made; status.Code(err) != codes.Canceled {
		t.Errorf("the request that nobody took ended with %v", err)
	}
	if active() || seconds() != 0 {
		t.Error("there is work when the request has been given up")
	}
}

// others is a stage that works for another orchestrator.
type others struct{ stage.Stage }

func (others) Info(context.Context) (stage.Info, error) {
	return stage.Info{}, stage.Errorf(stage.StageOwned, "it works for another orchestrator")
}

// TestScalerStandsBy: where the stages are another orchestrator's, the scaler does not tell that nothing waits.
func TestScalerStandsBy(t *testing.T) {
	o := options()
	o.Stages, o.Scaler = map[stage.Kind][]string{}, listen(t)
	for _, kind := range stage.Kinds() {
		lis := listen(t)
		serve(t, kind, others{stagetest.New(kind, nil)}, lis)
		o.Stages[kind] = []string{lis.Addr().String()}
	}
	keda := externalscaler.NewExternalScalerClient(run(t, o, listen(t), o.Scaler)[1])
	ref := &externalscaler.ScaledObjectRef{ScalerMetadata: map[string]string{"stage": "denoiser"}}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stream, err := keda.StreamIsActive(ctx, ref)
	for err == nil { // it ends when the stages have been looked at
		_, err = stream.Recv()
	}
	if code := status.Code(err); !errors.Is(err, io.EOF) && code != codes.Unavailable {
		t.Errorf("the stream ended with %v, want its end or UNAVAILABLE", err)
	}
	for name, ask := range map[string]func() error{
		"IsActive": func() error { _, err := keda.IsActive(ctx, ref); return err },
		"GetMetrics": func() error {
			_, err := keda.GetMetrics(ctx, &externalscaler.GetMetricsRequest{ScaledObjectRef: ref, MetricName: "backlog_seconds"})
			return err
		},
	} {
		if err := ask(); status.Code(err) != codes.Unavailable {
			t.Errorf("%s without the stages: %v, want UNAVAILABLE", name, err)
		}
	}
}
