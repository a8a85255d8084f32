package stagerpc_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"

	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// named notes who calls.
type named struct {
	stage.Stage
	callers map[string]stage.Caller
}

func (n named) Info(ctx context.Context) (stage.Info, error) {
	n.callers["info"] = stage.CallerOf(ctx)
	return n.Stage.Info(ctx)
}

func (n named) Load(ctx context.Context, req stage.LoadRequest, progress func(int64, int64)) error {
	n.callers["load"] = stage.CallerOf(ctx)
	return n.Stage.Load(ctx, req, progress)
}

func (n named) Evict(ctx context.Context, req stage.EvictRequest) (stage.Evicted, error) {
	n.callers["evict"] = stage.CallerOf(ctx)
	return n.Stage.Evict(ctx, req)
}

func (n named) Work(ctx context.Context, req stage.WorkRequest, o stage.Observer) (stage.Result, error) {
	n.callers["work"] = stage.CallerOf(ctx)
	return n.Stage.Work(ctx, req, o)
}

// TestCallerSurvives: a stage knows on whose behalf it is called, whatever the call and over both hops.
func TestCallerSurvives(t *testing.T) {
	callers := map[string]stage.Caller{}
	const kind = stage.KindDecoder
	runtime := connect(t, kind, named{stagetest.New(kind, nil), callers})
	service := connect(t, kind, stagerpc.New(runtime, kind))
	call := func(conn grpc.ClientConnInterface, want stage.Want) map[string]stage.Caller {
		clear(callers)
		d, req := stagerpc.New(conn, kind), stagetest.Request(kind)
		ctx := stage.WithCaller(soon(t), stage.Caller{Want: want})
		if _, err := d.Info(ctx); err != nil {
			t.Fatal(err)
		}
		if err := d.Load(ctx, stage.LoadRequest{Component: req.Components[0]}, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Work(ctx, req, stage.Observer{}); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Evict(ctx, stage.EvictRequest{Component: req.Components[0]}); err != nil {
			t.Fatal(err)
		}
		return callers
	}
	want := stage.Want{Bytes: 7, Since: time.Unix(12, 34)}
	expected := map[string]stage.Caller{"info": {Orchestrator: "a", Rank: "7-x", Want: want}}
	for _, name := range []string{"load", "work", "evict"} {
		expected[name] = stage.Caller{Orchestrator: "a", Rank: "7-x"}
	}
	if diff := cmp.Diff(expected, call(stagerpc.As(service, "a", "7-x"), want)); diff != "" {
		t.Errorf("of an orchestrator:\n%s", diff)
	}
	looks := func(ctx context.Context, conn grpc.ClientConnInterface) stage.Caller {
		if _, err := stagerpc.New(conn, kind).Info(ctx); err != nil {
			t.Fatal(err)
		}
		return callers["info"]
	}
	standby := stage.WithCaller(soon(t), stage.Caller{Standby: true})
	if c, want := looks(standby, stagerpc.As(service, "a", "7-x")), (stage.Caller{Rank: "7-x", Standby: true}); c != want {
		t.Errorf("a standby is %+v, want %+v", c, want)
	}
	drains := stage.WithCaller(soon(t), stage.Caller{Draining: true})
	if c, want := looks(drains, stagerpc.As(service, "a", "7-x")), (stage.Caller{Orchestrator: "a", Rank: "7-x", Draining: true}); c != want {
		t.Errorf("one that drains is %+v, want %+v", c, want)
	}
	for name, c := range call(service, stage.Want{}) {
		if c != (stage.Caller{}) {
			t.Errorf("%s of somebody is by %+v", name, c)
		}
	}
	for name, c := range call(stagerpc.As(service, strings.Repeat("a", 300), ""), stage.Want{Bytes: -1, Since: time.Unix(1, 0)}) {
		if c != (stage.Caller{}) {
			t.Errorf("%s of nonsense is by %+v", name, c)
		}
	}
	for _, kind := range stage.Kinds() {
		clear(callers)
		ctx := stage.WithCaller(soon(t), stage.Caller{Orchestrator: "b"})
		_, _ = over(t, kind, named{stagetest.New(kind, nil), callers}).Work(ctx, stagetest.Request(kind), stage.Observer{}) // nothing is resident
		if callers["work"].Orchestrator != "b" {
			t.Errorf("work of the %v is by %+v", kind, callers["work"])
		}
	}
}
