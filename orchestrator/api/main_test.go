package api

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/triptych-serving/triptych/orchestrator/fleet/fleettest"
	"github.com/triptych-serving/triptych/orchestrator/pipeline"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type (
	spec     = triptychv1alpha1.GenerationSpec
	response = triptychv1alpha1.GenerateResponse
)

func ptr[T any](v T) *T { return &v }

// rig is the API over a pipeline over fakes, behind gRPC.
type rig struct {
	*fleettest.Rig
	service *Service
	client  triptychv1alpha1.GenerationServiceClient
	models  triptychv1alpha1.ModelServiceClient
	memory  triptychv1alpha1.ResidencyServiceClient
}

// over serves a fleet of services; change may change the service before it starts.
func over(t *testing.T, fleet *fleettest.Rig, change func(*Service)) *rig {
	t.Helper()
	r := &rig{Rig: fleet}
	r.service = New(Options{
		Pipeline: &pipeline.Pipeline{Fleet: fleet.Fleet, Keeper: fleet.Keeper, Patience: time.Minute, CheckpointEveryNSteps: 5},
		Logger:   slog.New(slog.DiscardHandler), MaxJobs: 4, SendTimeout: time.Minute,
	})
	if change != nil {
		change(r.service)
	}
	conn := stagetest.Connect(t, func(s grpc.ServiceRegistrar) { r.service.Register(s) })
	r.client, r.models = triptychv1alpha1.NewGenerationServiceClient(conn), triptychv1alpha1.NewModelServiceClient(conn)
	r.memory = triptychv1alpha1.NewResidencyServiceClient(conn)
	return r
}

func up(t *testing.T, change func(*Service)) *rig {
	t.Helper()
	return over(t, fleettest.Up(t), change)
}

// small is a request that is quick.
func small() *spec {
	return &spec{Model: stagetest.Model, Prompt: "a boat", Seed: ptr(uint64(7)), Steps: ptr(int32(6))}
}

func (r *rig) start(ctx context.Context, t *testing.T, s *spec) grpc.ServerStreamingClient[response] {
	t.Helper()
	stream, err := r.client.Generate(ctx, &triptychv1alpha1.GenerateRequest{Spec: s})
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

// rest reads a stream to its end.
func rest(stream grpc.ServerStreamingClient[response]) ([]*response, error) {
	var events []*response
	for {
		e, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return events, nil
		}
		if err != nil {
			return events, err
		}
		events = append(events, e)
	}
}

func (r *rig) generate(t *testing.T, s *spec) ([]*response, error) {
	t.Helper()
	return rest(r.start(fleettest.Soon(t), t, s))
}

// finished waits until no request is at work. MaxJobs has to be 1.
func (r *rig) finished(t *testing.T) {
	t.Helper()
	select {
	case r.service.places <- struct{}{}:
		<-r.service.places
	case <-fleettest.Soon(t).Done():
		t.Fatal("the request does not end")
	}
}

func info(err error) *errdetails.ErrorInfo {
	for _, d := range status.Convert(err).Details() {
		if i, ok := d.(*errdetails.ErrorInfo); ok {
			return i
		}
	}
	return &errdetails.ErrorInfo{}
}

// retry is when an error says to try again, 0 if it does not.
func retry(err error) time.Duration {
	for _, d := range status.Convert(err).Details() {
		if r, ok := d.(*errdetails.RetryInfo); ok {
			return r.GetRetryDelay().AsDuration()
		}
	}
	return 0
}

func refused(t *testing.T, err error, code codes.Code, reason stage.Reason) {
	t.Helper()
	if status.Code(err) != code || info(err).GetReason() != string(reason) {
		t.Errorf("ended with %v %s: %v, want %v %s", status.Code(err), info(err).GetReason(), err, code, reason)
	}
}

// recipes are those that a service tells of, to be changed.
func recipes(i *stage.Info) (out []*stage.Recipe) {
	for _, m := range i.Models {
		for n := range m.Recipes {
			out = append(out, &m.Recipes[n])
		}
	}
	return out
}
