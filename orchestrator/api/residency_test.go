package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/triptych-serving/triptych/orchestrator/fleet/fleettest"
	"github.com/triptych-serving/triptych/orchestrator/residency"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

type watching = grpc.ServerStreamingClient[triptychv1alpha1.WatchResidencyResponse]

// watch begins to watch and reads the first snapshot.
func (r *rig) watch(ctx context.Context, t *testing.T) (watching, *triptychv1alpha1.ResidencySnapshot) {
	t.Helper()
	stream, err := r.memory.WatchResidency(ctx, &triptychv1alpha1.WatchResidencyRequest{})
	if err != nil {
		t.Fatal(err)
	}
	first := recv(t, stream)
	if first.GetSnapshot() == nil {
		t.Fatalf("the first news is %v", first)
	}
	return stream, first.GetSnapshot()
}

func recv(t *testing.T, stream watching) *triptychv1alpha1.WatchResidencyResponse {
	t.Helper()
	news, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	return news
}

// TestWatchResidency: every decision of a job is told, with its job and service, between two snapshots
// that it leads from and to.
func TestWatchResidency(t *testing.T) {
	r := up(t, nil)
	stream, first := r.watch(fleettest.Soon(t), t)
	if len(first.GetServices()) != 3 || len(first.GetComponents()) != 0 || len(first.GetDevices()) == 0 || first.GetTime() == nil {
		t.Errorf("the first snapshot is %v", first)
	}
	used := map[string]int64{}
	for _, d := range first.GetDevices() {
		used[d.GetDevice()] = d.GetUsedBytes()
	}
	events, err := r.generate(t, small())
	if err != nil {
		t.Fatal(err)
	}
	id := events[0].GetAccepted().GetRequestId()
	counts := map[triptychv1alpha1.ResidencyEvent_Action]int{}
	for done := 0; done < 3; { // stages that worked
		d := recv(t, stream).GetDecision()
		e := d.GetEvent()
		counts[e.GetAction()]++
		switch e.GetAction() {
		case triptychv1alpha1.ResidencyEvent_ACTION_RESERVE, triptychv1alpha1.ResidencyEvent_ACTION_PREFETCH:
			used[e.GetDevice()] += e.GetBytes()
		case triptychv1alpha1.ResidencyEvent_ACTION_RELEASE:
			used[e.GetDevice()] -= e.GetBytes()
		}
		if used[e.GetDevice()] != e.GetUsedBytes() || e.GetTime() == nil || d.GetService() == "" {
			t.Errorf("%d bytes were used before %v", used[e.GetDevice()], d)
		}
		if e.GetClass() == triptychv1alpha1.ResidencyEvent_CLASS_WORK_DONE {
			done++
			if d.GetJob() != id || d.GetRequest() == 0 || e.GetTook().AsDuration() <= 0 {
				t.Errorf("the job is %s: %v", id, d)
			}
		}
	}
	if n := counts[triptychv1alpha1.ResidencyEvent_ACTION_LOADED]; n != 3 {
		t.Errorf("%d loads, want 3: %v", n, counts)
	}
	_, second := r.watch(fleettest.Soon(t), t)
	for _, d := range second.GetDevices() {
		if d.GetUsedBytes() != used[d.GetDevice()] {
			t.Errorf("decisions lead to %d bytes, the next snapshot has %v", used[d.GetDevice()], d)
		}
	}
	if len(second.GetComponents()) != 3 || slices.ContainsFunc(second.GetComponents(), func(c *triptychv1alpha1.ComponentUse) bool {
		return c.GetState() != triptychv1alpha1.ComponentUse_STATE_RESIDENT || c.GetWeightsBytes() == 0
	}) {
		t.Errorf("the next snapshot has %v", second.GetComponents())
	}
}

// TestSlowWatcher: one that does not read holds up neither requests nor others who watch; it is told
// how many decisions it lost, and goes on from a snapshot.
func TestSlowWatcher(t *testing.T) {
	r := up(t, nil)
	slow, _ := r.watch(fleettest.Soon(t), t)
	quick := r.Keeper.Watch()
	defer quick.Close()
	need := residency.AcquireRequest{Job: "job", Need: residency.Need{Kind: stage.KindEncoder, Components: []string{stagetest.Component(stage.KindEncoder, stagetest.Model)}}}
	need.Need.Footprints = map[string]stage.Footprint{}
	for _, class := range r.Fleet.Classes(stage.KindEncoder, need.Need.Components) {
		need.Need.Footprints[class] = stage.Footprint{Weights: []stage.Weights{{Component: need.Need.Components[0], Bytes: 4000, WholeBytes: 4000}}}
	}
	made, lost := 0, 0
	read := func() {
		n, err := quick.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if n.Snapshot == nil {
			made++
		}
		if n.Dropped > 0 {
			t.Fatal("one who reads lost decisions")
		}
	}
	read()
	for range 10_000 { // far more than the queue and the windows of a connection hold
		lease, err := r.Keeper.Acquire(t.Context(), need)
		if err != nil {
			t.Fatal(err)
		}
		lease.Release()
		for range 3 { // at least: Reserve, Grant, Release
			read()
		}
	}
	made += 2 // the first turn loaded
	told := 0
	for told+lost < made {
		if s := recv(t, slow).GetSnapshot(); s != nil {
			lost = int(s.GetDroppedDecisions())
		} else {
			told++
		}
	}
	if told+lost != made || lost == 0 {
		t.Errorf("%d decisions were told and %d dropped of %d", told, lost, made)
	}
}

// TestWatchesShared: one address cannot take every place, and whoever is refused hears when to try again.
func TestWatchesShared(t *testing.T) {
	w := newWatches(maxWatches, maxPeerWatches)
	var leaves []func()
	enter := func(from string) (retry time.Duration) {
		leave, err := w.enter(from)
		if err == nil {
			leaves = append(leaves, leave)
			return 0
		}
		var e *stage.Error
		if !errors.As(err, &e) || e.Reason != stage.QueueFull {
			t.Fatal(err)
		}
		return e.RetryAfter
	}
	for range maxPeerWatches {
		if enter("10.0.0.1") != 0 {
			t.Fatal("refused below the share")
		}
	}
	if enter("10.0.0.1") == 0 {
		t.Error("one address has more than its share")
	}
	for host := 2; len(leaves) < maxWatches; host++ {
		for range maxPeerWatches {
			if enter(fmt.Sprint("10.0.0.", host)) != 0 {
				t.Fatal("refused though there are places")
			}
		}
	}
	if enter("10.0.0.99") == 0 {
		t.Error("more than there are places")
	}
	for _, leave := range leaves {
		leave()
	}
	if w.all != 0 || len(w.held) != 0 {
		t.Errorf("%d are counted who have left, of %v", w.all, w.held)
	}
}

// TestWatchesEnd: with the server, and there are not too many.
func TestWatchesEnd(t *testing.T) {
	var served *Service
	r := up(t, func(s *Service) { served, s.watches = s, newWatches(1, 1) })
	stream, _ := r.watch(fleettest.Soon(t), t)
	second, err := r.memory.WatchResidency(fleettest.Soon(t), &triptychv1alpha1.WatchResidencyRequest{})
	if err == nil {
		_, err = second.Recv()
	}
	refused(t, err, codes.ResourceExhausted, stage.QueueFull)
	served.Drain(t.Context())
	_, err = stream.Recv()
	refused(t, err, codes.Unavailable, stage.ShuttingDown)
}
