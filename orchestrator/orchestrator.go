// Package orchestrator puts its rooms together: the fleet of stages, the keeper of memory, the
// pipeline and the public API, served on one listener.
package orchestrator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/triptych-serving/triptych/internal/rpcserver"
	"github.com/triptych-serving/triptych/orchestrator/api"
	"github.com/triptych-serving/triptych/orchestrator/fleet"
	"github.com/triptych-serving/triptych/orchestrator/metrics"
	"github.com/triptych-serving/triptych/orchestrator/pipeline"
	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/orchestrator/scale"
	"github.com/triptych-serving/triptych/orchestrator/scaler"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
)

// Options configure an orchestrator.
type Options struct {
	ID       string                  // whose its services are, see fleet.Options
	Undrain  bool                    // see fleet.Options
	Stages   map[stage.Kind][]string // addresses of the services
	StageTLS rpcserver.ClientTLS     // towards the services
	TLS      rpcserver.TLS           // towards callers
	Logger   *slog.Logger
	Memory   residency.Policy
	MaxJobs  int // requests at work or waiting at once
	// Patience is how long a request waits for a stage of which no service answers.
	Patience time.Duration
	// MinReplicas are the services of a kind without which the orchestrator is not ready, of a kind that is not told 1.
	MinReplicas map[stage.Kind]int
	// CheckpointEveryNSteps is how much denoising a lost stage can cost.
	CheckpointEveryNSteps int
	SendTimeout           time.Duration // how long a caller may take to read a message while images wait for him
	Metrics               net.Listener  // where Prometheus scrapes, nil for nowhere
	Scaler                net.Listener  // where KEDA asks, as callers do by TLS; nil for nowhere
	// DrainTimeout is how long Run may take to return once its context has ended; 0 takes rpcserver's default.
	DrainTimeout time.Duration
	Health       *rpcserver.Health // that the orchestrator keeps up to date; nil makes one, which its server alone tells
}

// OptionError is an option that no orchestrator can run with.
type OptionError struct{ Err error }

// Error is the cause's.
func (e *OptionError) Error() string { return "orchestrator: " + e.Err.Error() }

// Unwrap gives the cause.
func (e *OptionError) Unwrap() error { return e.Err }

// check refuses numbers out of range.
func (o Options) check() error {
	switch {
	case o.MaxJobs < 1:
		return stage.Invalid(stage.InvalidField, "max-jobs", o.MaxJobs, "1 or more")
	case o.CheckpointEveryNSteps < 0:
		return stage.Invalid(stage.InvalidField, "checkpoint-every", o.CheckpointEveryNSteps, "a number of steps, or 0 for none")
	case o.Patience < 0:
		return stage.Invalid(stage.InvalidField, "patience", o.Patience, "0 or a positive duration, such as 1m")
	case o.SendTimeout < 0:
		return stage.Invalid(stage.InvalidField, "send-timeout", o.SendTimeout, "0 or a positive duration, such as 30s")
	case o.DrainTimeout < 0:
		return stage.Invalid(stage.InvalidField, "drain-timeout", o.DrainTimeout, "a positive duration, such as 20s")
	}
	for kind, n := range o.MinReplicas {
		if n < 0 {
			return stage.Invalid(stage.InvalidField, "min-replicas", fmt.Sprintf("%v=%d", kind, n), "0 or more")
		}
	}
	return o.Memory.Check()
}

// Run serves the public API on lis, metrics and the scaler, until ctx ends, and closes all listeners. Then it drains: it is
// NOT_SERVING and refuses new images, has callers connect anew for their next calls, those under way may end, or are cut in the end,
// and the services are given back. It returns nil within DrainTimeout. Options that cannot be used are an OptionError.
func Run(ctx context.Context, lis net.Listener, o Options) (err error) {
	defer func() {
		if err == nil {
			return
		}
		_ = lis.Close() // Serve has not, if it was not reached
		for _, other := range []net.Listener{o.Metrics, o.Scaler} {
			if other != nil {
				_ = other.Close()
			}
		}
	}()
	if err := o.check(); err != nil {
		return &OptionError{err}
	}
	credentials, err := rpcserver.DialCredentials(o.StageTLS, o.Logger)
	if err != nil {
		return &OptionError{err}
	}
	if o.Health == nil {
		o.Health = rpcserver.NewHealth()
	}
	if o.DrainTimeout == 0 {
		o.DrainTimeout = rpcserver.DefaultDrainTimeout
	}
	reserve := endReserve(o.DrainTimeout)
	serves := rpcserver.Options{Logger: o.Logger, TLS: o.TLS, Health: o.Health, MaxRecvMsgSize: api.MaxRequestBytes, StopTimeout: o.DrainTimeout - reserve + reserve/3}
	server, err := rpcserver.New(serves)
	if err != nil {
		return &OptionError{err}
	}
	serves.MaxConnectionAge, serves.StopTimeout = drainingConnectionAge, reserve/3
	last, err := rpcserver.New(serves)
	if err != nil {
		return &OptionError{err}
	}
	asked, err := rpcserver.New(rpcserver.Options{
		Logger: o.Logger, TLS: o.TLS, MaxRecvMsgSize: scaler.MaxRequestBytes, MaxConnectionAge: scaler.MaxConnectionAge,
	})
	if err != nil {
		return &OptionError{err}
	}
	var (
		keeper *residency.Keeper
		stages *fleet.Fleet
		public *api.Service
	)
	snapshot := func() residency.Snapshot { return keeper.Snapshot() }
	meter := scale.NewMeter(snapshot, func() []scale.Unplanned { return public.Unplanned() })
	counts := metrics.New(metrics.Sources{
		Snapshot: snapshot, Services: func() []fleet.ServiceState { return stages.Services() }, Models: func() []fleet.Model { return stages.Models() }, Backlog: meter.Backlog,
		Owner: func() bool { return stages.Standing() == fleet.Owner },
	})
	keeper = residency.New(residency.Options{Policy: o.Memory, Changed: meter.Changed, Sink: func(e residency.Event) {
		logDecision(ctx, o.Logger, e)
		counts.Decided(e)
		meter.Decided(e)
	}})
	defer keeper.Close()
	stages, err = fleet.New(fleet.Options{
		ID: o.ID, Undrain: o.Undrain, Addresses: o.Stages, Dial: []grpc.DialOption{grpc.WithTransportCredentials(credentials)}, Keeper: keeper, Logger: o.Logger,
		Diagnose: func(ctx context.Context, address, host string) string {
			t := o.StageTLS
			if t != (rpcserver.ClientTLS{}) {
				t.ServerName = cmp.Or(t.ServerName, host)
			}
			return rpcserver.Diagnose(ctx, address, t)
		},
	})
	if err != nil {
		return &OptionError{err}
	}
	answering, answered := context.WithCancel(context.WithoutCancel(ctx)) // by the time it takes to drain longer than ctx
	defer answered()
	serving, until := errgroup.WithContext(answering)
	public = api.New(api.Options{
		Pipeline: &pipeline.Pipeline{Fleet: stages, Keeper: keeper, Patience: o.Patience, CheckpointEveryNSteps: o.CheckpointEveryNSteps, Evaluated: counts.Evaluated},
		Logger:   o.Logger, MaxJobs: o.MaxJobs, SendTimeout: o.SendTimeout, Ended: func(e api.End) { counts.Ended(e.Model, e.Images, e.Took, e.Err) },
		Changed: meter.Changed,
	})
	public.Register(server)
	public.Register(last)

	relay := rpcserver.NewRelay(lis)
	working, handOver := context.WithCancel(until)
	defer handOver()
	serving.Go(func() error { return server.Serve(working, relay.Leg()) })
	serving.Go(func() error {
		defer answered()
		select {
		case <-ctx.Done():
		case <-until.Done(): // something could not go on
			server.Cut()
			return nil
		}
		o.Logger.Info("draining", "timeout", o.DrainTimeout)
		o.Health.SetDraining(true)
		stages.Drain()
		handOver() // callers' connections take no further calls, so that these find the next orchestrator
		serving.Go(func() error { return last.Serve(until, relay.Leg()) })
		bound, cancel := context.WithTimeout(until, o.DrainTimeout-reserve)
		defer cancel()
		public.Drain(bound)
		return nil
	})
	o.Health.Set(true, rpcserver.Startup)
	if o.Metrics != nil {
		o.Logger.Info("metrics are at /metrics", "address", o.Metrics.Addr().String())
		serving.Go(func() error { return counts.Serve(until, o.Metrics) })
	}
	if o.Scaler != nil {
		scaler.New(scaler.Options{Meter: meter, Refuse: stages.Yields, Ending: until.Done(), Logger: o.Logger}).Register(asked)
		serving.Go(func() error { return asked.Serve(until, o.Scaler) })
	}
	watching, stop := context.WithCancel(context.WithoutCancel(ctx)) // calls that are ending still need their stages
	var watch sync.WaitGroup
	watch.Go(func() { stages.Run(watching) })
	watch.Go(func() {
		stages.Follow(until, fleet.Need{Replicas: o.MinReplicas, Patience: o.Patience}, func(ready bool) {
			o.Health.Set(ready, triptychv1alpha1.GenerationService_ServiceDesc.ServiceName)
			o.Health.SetReady(ready)
		})
	})
	err = serving.Wait()
	_ = relay.Close() // its servers have ended
	stop()
	watch.Wait()
	keeper.Close() // so that it asks nothing of services that are given back
	stages.Leave()
	return errors.Join(err, stages.Close())
}

// drainingConnectionAge is how long a connection to an orchestrator that drains takes calls, which it refuses.
const drainingConnectionAge = time.Second

// endReserve is how much of a drain timeout is kept for what follows the requests: their last answers and leaving the services.
func endReserve(timeout time.Duration) time.Duration { return min(timeout/2, 3*time.Second) }

// logDecision writes a decision about memory to the log: the record that requests see too.
func logDecision(ctx context.Context, log *slog.Logger, e residency.Event) {
	if e.Job != "" {
		log = log.With("request", string(e.Job))
	}
	level := slog.LevelInfo
	if e.Class == residency.Stale || e.Class == residency.Changed {
		level = slog.LevelWarn
	}
	log.LogAttrs(ctx, level, "residency", slog.String("action", e.Action.String()), slog.String("stage", e.Kind.String()),
		slog.String("model", e.Model()), slog.String("component", e.Component), slog.String("device", e.Device), slog.Int64("bytes", e.Bytes),
		slog.Int64("used_bytes", e.UsedBytes), slog.Int64("budget_bytes", e.BudgetBytes), slog.String("reason", e.Reason))
}
