// Package scaler serves the backlog to KEDA, as the external scaler of its triggers `external` and `external-push`.
//
// The package may import orchestrator/scale, stage, stage/stagerpc, proto/externalscaler and grpc.
package scaler

import (
	"context"
	"log/slog"
	"math"
	"time"

	"google.golang.org/grpc"

	"github.com/triptych-serving/triptych/orchestrator/scale"
	"github.com/triptych-serving/triptych/proto/externalscaler"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
)

// Metric is the only one: seconds of work, for all replicas together.
const Metric = "backlog_seconds"

const (
	// MaxRequestBytes bounds what is received: metadata are short.
	MaxRequestBytes = 128 << 10
	// MaxConnectionAge has callers connect anew, so that those who came by a name hear of the replica that the name stands for now.
	MaxConnectionAge = 30 * time.Second

	maxStreams = 256
	pause      = 50 * time.Millisecond // between two looks for one stream
	lookEvery  = time.Second           // for what nobody tells of
	retry      = time.Second           // where there are too many streams
)

// Options are what the scaler asks.
type Options struct {
	Meter *scale.Meter
	// Refuse is why another orchestrator is to be asked, nil if this one has the stages.
	Refuse func() error
	// Ending is closed when the server shuts down, which would wait for those who follow.
	Ending <-chan struct{}
	Logger *slog.Logger
}

// Service implements ExternalScaler.
type Service struct {
	externalscaler.UnimplementedExternalScalerServer
	Options
	streams chan struct{} // one for each
}

// New makes the service.
func New(o Options) *Service {
	return &Service{Options: o, streams: make(chan struct{}, maxStreams)}
}

// Register adds the service to a server.
func (s *Service) Register(r grpc.ServiceRegistrar) {
	externalscaler.RegisterExternalScalerServer(r, s)
}

// demand is what there is to do for the target of who asks.
func (s *Service) demand(ref *externalscaler.ScaledObjectRef) (d scale.Demand, err error) {
	t, err := scale.ParseTarget(ref.GetScalerMetadata())
	if err == nil {
		err = s.Refuse()
	}
	if err != nil {
		return d, err
	}
	return s.Meter.Backlog().Demand(t), nil
}

// IsActive implements ExternalScaler.
func (s *Service) IsActive(ctx context.Context, ref *externalscaler.ScaledObjectRef) (*externalscaler.IsActiveResponse, error) {
	d, err := s.demand(ref)
	if err != nil {
		return nil, stagerpc.ToStatus(ctx, s.Logger, err)
	}
	return &externalscaler.IsActiveResponse{Result: d.Active}, nil
}

// StreamIsActive implements ExternalScaler. A stream that has begun ends well when the stages are another orchestrator's or the
// server shuts down: KEDA comes back the later, the more often one has failed.
func (s *Service) StreamIsActive(ref *externalscaler.ScaledObjectRef, stream grpc.ServerStreamingServer[externalscaler.IsActiveResponse]) error {
	ctx := stream.Context()
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		full := stage.Errorf(stage.QueueFull, "%d streams are open already", maxStreams)
		full.RetryAfter = retry
		return stagerpc.ToStatus(ctx, s.Logger, full)
	}
	wake, stop := s.Meter.Follow()
	defer stop()
	d, err := s.demand(ref)
	if err != nil {
		return stagerpc.ToStatus(ctx, s.Logger, err)
	}
	for told := !d.Active; err == nil; d, err = s.demand(ref) {
		if d.Active != told {
			if err := stream.Send(&externalscaler.IsActiveResponse{Result: d.Active}); err != nil {
				return err
			}
			told = d.Active
		}
		if !s.rest(ctx, wake) {
			break
		}
	}
	return nil
}

// rest waits until it is time for another look. It reports false when there is none.
func (s *Service) rest(ctx context.Context, wake <-chan struct{}) bool {
	return s.wait(ctx, pause, nil) && s.wait(ctx, lookEvery, wake)
}

// wait reports false when the stream is to end.
func (s *Service) wait(ctx context.Context, most time.Duration, until <-chan struct{}) bool {
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-until:
	case <-timer.C:
	case <-ctx.Done():
		return false
	case <-s.Ending:
		return false
	}
	return true
}

// GetMetricSpec implements ExternalScaler.
func (s *Service) GetMetricSpec(ctx context.Context, ref *externalscaler.ScaledObjectRef) (*externalscaler.GetMetricSpecResponse, error) {
	t, err := scale.ParseTarget(ref.GetScalerMetadata())
	if err != nil {
		return nil, stagerpc.ToStatus(ctx, s.Logger, err)
	}
	return &externalscaler.GetMetricSpecResponse{MetricSpecs: []*externalscaler.MetricSpec{
		{MetricName: Metric, TargetSize: whole(t.Seconds), TargetSizeFloat: t.Seconds},
	}}, nil
}

// GetMetrics implements ExternalScaler.
func (s *Service) GetMetrics(ctx context.Context, r *externalscaler.GetMetricsRequest) (*externalscaler.GetMetricsResponse, error) {
	if name := r.GetMetricName(); name != Metric {
		return nil, stagerpc.ToStatus(ctx, s.Logger, stage.Invalid(stage.InvalidField, "metricName", name, Metric))
	}
	d, err := s.demand(r.GetScaledObjectRef())
	if err != nil {
		return nil, stagerpc.ToStatus(ctx, s.Logger, err)
	}
	return &externalscaler.GetMetricsResponse{MetricValues: []*externalscaler.MetricValue{
		{MetricName: Metric, MetricValue: whole(d.Seconds), MetricValueFloat: d.Seconds},
	}}, nil
}

// whole is for callers who read no fractions.
func whole(seconds float64) int64 { return int64(math.Ceil(seconds)) }
