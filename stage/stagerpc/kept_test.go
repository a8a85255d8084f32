package stagerpc_test

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"

	stagepb "github.com/triptych-serving/triptych/proto/triptych/stage/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
	"github.com/triptych-serving/triptych/stage/stagetest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"
)

// counter counts the bytes of values that a server gets in chunks.
type counter struct {
	mu    sync.Mutex
	bytes int
}

func (c *counter) HandleRPC(_ context.Context, s stats.RPCStats) {
	if in, ok := s.(*stats.InPayload); ok {
		if m, ok := in.Payload.(*stagepb.WorkRequest); ok {
			c.mu.Lock()
			c.bytes += len(m.GetChunk().GetData())
			c.mu.Unlock()
		}
	}
}
func (c *counter) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (c *counter) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (c *counter) HandleConn(context.Context, stats.ConnStats)                       {}

// since tells the bytes since it was asked before.
func (c *counter) since() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.bytes
	c.bytes = 0
	return n
}

// hops are two connections to a stage behind one another, and what comes over each.
func hops(t *testing.T, kind stage.Kind, s stage.Stage) (stage.Stage, [2]*counter) {
	var counters [2]*counter
	for i := range counters {
		counters[i] = &counter{}
		s = stagerpc.New(connect(t, kind, s, grpc.StatsHandler(counters[i])), kind)
	}
	return s, counters
}

// TestConditioningComesOnce: values that do not change from image to image are sent for the first one, on both hops; what is
// resumed from is sent whenever it is.
func TestConditioningComesOnce(t *testing.T) {
	const kind = stage.KindDenoiser
	d, counters := hops(t, kind, stagetest.New(kind, nil))
	req := stagetest.ControlRequest()
	for _, name := range req.Components {
		if err := d.Load(soon(t), stage.LoadRequest{Component: name}, nil); err != nil {
			t.Fatal(err)
		}
	}
	plain := stagetest.New(kind, nil)
	for _, name := range req.Components {
		if err := plain.Load(soon(t), stage.LoadRequest{Component: name}, nil); err != nil {
			t.Fatal(err)
		}
	}
	all := 0
	for _, v := range req.Values {
		all += len(v.Tensor.Data)
		if v.File != nil {
			all += len(v.File.Data)
		}
	}
	req.CheckpointEveryNSteps = 2
	var last stage.Checkpoint
	image := func(seed uint64, want int) {
		t.Helper()
		req.Seed = seed
		got, err := d.Work(soon(t), req, stage.Observer{Checkpoint: func(c stage.Checkpoint) { last = c }})
		if err != nil {
			t.Fatal(err)
		}
		expected, err := plain.Work(soon(t), req, stage.Observer{})
		if err != nil || !bytes.Equal(got.Values[0].Tensor.Data, expected.Values[0].Tensor.Data) {
			t.Errorf("image %d differs: %v", seed, err)
		}
		for hop, c := range counters {
			if n := c.since(); n != want {
				t.Errorf("hop %d got %d bytes for image %d, want %d", hop, n, seed, want)
			}
		}
	}
	image(1, all)
	image(2, 0)
	image(3, 0)
	req.Resume = &last
	state := len(last.Values[0].Tensor.Data) + len(last.Values[1].Tensor.Data)
	image(3, state)
	image(3, state)
	req.Resume = nil
	req.Values[0].Tensor.Data[5] ^= 1 // another prompt
	image(4, len(req.Values[0].Tensor.Data))
	req.Values[0].Tensor.Data[5] ^= 1
	image(5, 0)
}

// TestKept: a server keeps so many bytes and values, the last used; nothing that is too large; and no result.
func TestKept(t *testing.T) {
	const kind = stage.KindDenoiser
	d, counters := hops(t, kind, stub{work: func(_ context.Context, req stage.WorkRequest, _ stage.Observer) (stage.Result, error) {
		return stage.Result{Values: req.Values}, nil
	}})
	comes := func(name string, size int, what byte) bool {
		t.Helper()
		f := &stage.File{Data: bytes.Repeat([]byte{what}, size)}
		got, err := d.Work(soon(t), stage.WorkRequest{Values: stage.Values{{Name: name, File: f}}}, stage.Observer{})
		if err != nil || !bytes.Equal(got.Values[0].File.Data, f.Data) {
			t.Fatalf("%s of %d bytes: %v", name, size, err)
		}
		a, b := counters[0].since(), counters[1].since()
		if a != b || a != 0 && a != size {
			t.Fatalf("%d and %d bytes came of %d", a, b, size)
		}
		return a > 0
	}
	const mib = 1 << 20
	for i := range byte(4) {
		if !comes("a", 4*mib, i) || comes("another name", 4*mib, i) {
			t.Errorf("value %d did not come once", i)
		}
	}
	if comes("a", 4*mib, 0) || !comes("a", 4*mib, 9) { // which takes the place of value 1
		t.Error("what is there comes, or what is not does not")
	}
	if comes("a", 4*mib, 0) || comes("a", 4*mib, 2) || !comes("a", 4*mib, 1) {
		t.Error("not the last used are kept")
	}
	for range 2 {
		if !comes("large", stagerpc.MaxKeptBytes+1, 7) {
			t.Error("a value is kept that is larger than all that may be")
		}
	}
	if comes("a", 4*mib, 1) {
		t.Error("a value that is too large takes the place of others")
	}
	for i := range stagerpc.MaxKept + 1 {
		comes("small", 8+i, 3)
	}
	if !comes("small", 8, 3) || comes("small", 8+stagerpc.MaxKept, 3) {
		t.Error("the number of values is not bounded")
	}
}

// TestKeptTogether has many calls with the same values at once.
func TestKeptTogether(t *testing.T) {
	d, _ := hops(t, stage.KindDenoiser, stub{work: func(_ context.Context, req stage.WorkRequest, _ stage.Observer) (stage.Result, error) {
		return stage.Result{Values: req.Values}, nil
	}})
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 8 {
				want := fmt.Appendf(nil, "value %d", (i+j)%5)
				got, err := d.Work(soon(t), stage.WorkRequest{Values: stage.Values{{Name: "x", File: &stage.File{Data: want}}}}, stage.Observer{})
				if err != nil || !bytes.Equal(got.Values[0].File.Data, want) {
					t.Errorf("%q: %v", want, err)
				}
			}
		})
	}
	all.Wait()
}

// TestKeptIsChecked: bytes that are not what their hash says are refused, and are nobody else's.
func TestKeptIsChecked(t *testing.T) {
	conn := connect(t, stage.KindDenoiser, stub{work: func(context.Context, stage.WorkRequest, stage.Observer) (stage.Result, error) {
		return stage.Result{}, nil
	}})
	v := stage.Values{{Name: "x", File: &stage.File{Data: []byte("good")}}}
	announced := fileSpec("x", 4)
	announced.Sha256 = sum(v[0].File.Data)
	open := openDenoise(func(o *stagepb.WorkOpen) { o.Values = []*spec{announced} })
	stream, err := stagepb.NewWorkServiceClient(conn).Work(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	err = play(t, stream, open, sent(chunk(0, 0, true, []byte("evil"))))
	if got := stagerpc.FromStatus(err, 0); stage.ReasonOf(got) != stage.ChecksumMismatch {
		t.Errorf("bytes of another hash: %v", got)
	}
	stream, err = stagepb.NewWorkServiceClient(conn).Work(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(open); err != nil {
		t.Fatal(err)
	}
	m, err := stream.Recv()
	if err != nil || len(m.GetReady().GetWanted()) != 1 {
		t.Errorf("it is not wanted any more: %v, %v", m, err)
	}
}
