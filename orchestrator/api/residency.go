package api

import (
	"context"
	"math"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/triptych-serving/triptych/orchestrator/residency"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
)

// maxWatches is how many may watch at once: every decision is told to each of them. maxPeerWatches is how many of them may come
// from one address.
const (
	maxWatches     = 64
	maxPeerWatches = 16
)

// WatchResidency implements ResidencyService.
func (s *Service) WatchResidency(req *triptychv1alpha1.WatchResidencyRequest, stream grpc.ServerStreamingServer[triptychv1alpha1.WatchResidencyResponse]) error {
	return stagerpc.ToStatus(stream.Context(), s.Logger, s.watch(req, stream))
}

func (s *Service) watch(req *triptychv1alpha1.WatchResidencyRequest, stream grpc.ServerStreamingServer[triptychv1alpha1.WatchResidencyResponse]) error {
	leave, err := s.watches.enter(peerOf(stream.Context()))
	if err != nil {
		return err
	}
	defer leave()
	watch := s.Pipeline.Keeper.Watch()
	defer watch.Close() // when nobody reads it any more
	ending, cancel := context.WithCancelCause(stream.Context())
	group, ctx := errgroup.WithContext(ending)
	defer func() {
		cancel(context.Canceled)
		_ = group.Wait() // its first error is the cause of ctx
	}()
	group.Go(func() error {
		select {
		case <-s.drain.over:
			return errShuttingDown
		case <-ctx.Done():
			return nil
		}
	})
	first, err := watch.Next(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(newsProto(first)); err != nil {
		return unsent(stream.Context(), err)
	}
	news := make(chan *triptychv1alpha1.WatchResidencyResponse)
	offer := func(n *triptychv1alpha1.WatchResidencyResponse) error {
		select {
		case news <- n:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	group.Go(func() error {
		for {
			n, err := watch.Next(ctx)
			if err != nil {
				return err
			}
			if err := offer(newsProto(n)); err != nil {
				return err
			}
		}
	})
	if req.GetJobs() {
		group.Go(func() error {
			return s.jobs.follow(ctx, func(p *triptychv1alpha1.JobProgress) error {
				return offer(&triptychv1alpha1.WatchResidencyResponse{News: &triptychv1alpha1.WatchResidencyResponse_Job{Job: p}})
			})
		})
	}
	for {
		select {
		case n := <-news:
			if err := stream.Send(n); err != nil {
				return unsent(stream.Context(), err)
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func newsProto(n residency.News) *triptychv1alpha1.WatchResidencyResponse {
	if n.Snapshot != nil {
		return &triptychv1alpha1.WatchResidencyResponse{News: &triptychv1alpha1.WatchResidencyResponse_Snapshot{Snapshot: snapshotProto(n)}}
	}
	e := n.Event
	return &triptychv1alpha1.WatchResidencyResponse{News: &triptychv1alpha1.WatchResidencyResponse_Decision{Decision: &triptychv1alpha1.ResidencyDecision{
		Event: residencyProto(e), Request: uint64(e.Request), Job: string(e.Job), Service: string(e.Stage),
	}}}
}

func snapshotProto(n residency.News) *triptychv1alpha1.ResidencySnapshot {
	s := n.Snapshot
	p := &triptychv1alpha1.ResidencySnapshot{Time: timestamppb.New(s.Time), DroppedDecisions: int64(n.Dropped)}
	for _, d := range s.Devices {
		p.Devices = append(p.Devices, &triptychv1alpha1.DeviceUse{Device: d.Key(), UsedBytes: d.UsedBytes, BudgetBytes: d.BudgetBytes, PeakBytes: d.PeakBytes, ForeignBytes: d.ForeignBytes})
	}
	for _, h := range s.Hosts {
		p.Hosts = append(p.Hosts, &triptychv1alpha1.HostUse{Host: h.Host, UsedBytes: h.UsedBytes, BudgetBytes: h.BudgetBytes})
	}
	for _, v := range s.Stages {
		p.Services = append(p.Services, &triptychv1alpha1.ServiceUse{
			Service: string(v.Stage), Stage: v.Kind.String(), Device: v.Device, Request: uint64(v.Request), Job: string(v.Job),
			Model: modelOf(v.Components), Components: v.Components, Working: v.Leased, ScratchBytes: v.ScratchBytes,
		})
	}
	for _, c := range s.Components {
		p.Components = append(p.Components, &triptychv1alpha1.ComponentUse{
			Service: string(c.Stage), Model: stage.ModelOf(c.Component), Component: c.Component, State: triptychv1alpha1.ComponentUse_State(c.State), WeightsBytes: c.WeightsBytes, WarmBytes: c.WarmBytes,
		})
	}
	for _, w := range s.Waiting {
		p.Waiting = append(p.Waiting, &triptychv1alpha1.WaitingRequest{
			Request: uint64(w.Request), Job: string(w.Job), Stage: w.Need.Kind.String(), Model: modelOf(w.Need.Components), Components: w.Need.Components,
			Bytes: w.Need.LeastBytes(), Since: timestamppb.New(w.Since), Service: string(w.Stage),
		})
	}
	return p
}

// modelOf is that of the component which does the work.
func modelOf(components []string) string {
	if len(components) == 0 {
		return ""
	}
	return stage.ModelOf(components[0])
}

// residencyProto is a decision as every caller sees it: who else was concerned is not told.
func residencyProto(e residency.Event) *triptychv1alpha1.ResidencyEvent {
	p := &triptychv1alpha1.ResidencyEvent{
		Time: timestamppb.New(e.Time), Action: triptychv1alpha1.ResidencyEvent_Action(e.Action), Class: triptychv1alpha1.ResidencyEvent_Class(e.Class),
		Stage: e.Kind.String(), Model: e.Model(), Component: e.Component, Components: e.Components, Device: e.Device,
		Bytes: e.Bytes, UsedBytes: e.UsedBytes, BudgetBytes: e.BudgetBytes, Reason: e.Reason,
		Turns: int32(min(e.Turns, math.MaxInt32)), Taken: int32(min(e.Taken, math.MaxInt32)), WholeBytes: e.WholeBytes, Unfinished: e.Unfinished,
	}
	if e.Took != 0 {
		p.Took = durationpb.New(e.Took)
	}
	return p
}
