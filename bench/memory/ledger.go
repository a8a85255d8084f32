package main

import (
	"context"
	"sync"

	"google.golang.org/grpc"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
)

// ledger is the orchestrator's, by its record alone.
type ledger struct {
	peak             int64
	loads, evictions int
	loaded           int64 // bytes
	stop             func() ledger
}

// follow listens from now on.
func follow(conn *grpc.ClientConn) (*ledger, error) {
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := triptychv1alpha1.NewResidencyServiceClient(conn).WatchResidency(ctx, &triptychv1alpha1.WatchResidencyRequest{})
	if err == nil {
		_, err = stream.Recv() // what there is
	}
	if err != nil {
		cancel()
		return nil, err
	}
	l := &ledger{}
	var reading sync.WaitGroup
	reading.Go(func() {
		for {
			news, err := stream.Recv()
			if err != nil { // it was cancelled
				return
			}
			l.add(news.GetDecision().GetEvent())
		}
	})
	l.stop = func() ledger {
		cancel()
		reading.Wait()
		return *l
	}
	return l, nil
}

func (l *ledger) add(e *triptychv1alpha1.ResidencyEvent) {
	l.peak = max(l.peak, e.GetUsedBytes())
	switch {
	case e.GetAction() == triptychv1alpha1.ResidencyEvent_ACTION_LOADED:
		l.loads++
		l.loaded += e.GetBytes()
	case e.GetClass() == triptychv1alpha1.ResidencyEvent_CLASS_EVICTED:
		l.evictions++
	}
}
