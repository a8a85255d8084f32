package stagerpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	stagepb "github.com/triptych-serving/triptych/proto/triptych/stage/v1alpha1"
	tensorpb "github.com/triptych-serving/triptych/proto/triptych/tensor/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
)

func (c *client) Work(ctx context.Context, req stage.WorkRequest, observer stage.Observer) (stage.Result, error) {
	open, values, err := workToOpen(req, observer)
	if err != nil {
		return stage.Result{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.work.Work(ctx)
	if err != nil {
		return stage.Result{}, FromStatus(err, c.kind)
	}
	in := clientInbox(stream, c.kind)
	send := clientOutbox(stream, in, c.kind)
	if err := send(&stagepb.WorkRequest{Payload: &stagepb.WorkRequest_Open{Open: open}}); err != nil {
		return stage.Result{}, err
	}
	ready, err := first(in, "ready", (*stagepb.WorkResponse).GetReady)
	if err != nil {
		return stage.Result{}, err
	}
	if err := checkWanted(in, open, ready.GetWanted()); err != nil {
		return stage.Result{}, err
	}
	err = Send(values, ready.GetWanted(), func(c *tensorpb.TensorChunk) error {
		return send(&stagepb.WorkRequest{Payload: &stagepb.WorkRequest_Chunk{Chunk: c}})
	})
	if err != nil {
		return stage.Result{}, err
	}
	if err := stream.CloseSend(); err != nil {
		return stage.Result{}, FromStatus(err, c.kind)
	}
	return watchWork(in, observer)
}

// workToOpen makes everything but the bytes of values, and the values to send. What nobody observes is not asked for.
func workToOpen(req stage.WorkRequest, observer stage.Observer) (*stagepb.WorkOpen, stage.Values, error) {
	open := &stagepb.WorkOpen{
		Turn: req.Turn, Components: req.Components, Options: optionsToProto(req.Options), Seed: req.Seed, Units: observer.Unit != nil,
		PreviewEveryNSteps: saturate(req.PreviewEveryNSteps), CheckpointEveryNSteps: saturate(req.CheckpointEveryNSteps),
	}
	if observer.Preview == nil {
		open.PreviewEveryNSteps = min(open.PreviewEveryNSteps, 0)
	}
	if observer.Checkpoint == nil {
		open.CheckpointEveryNSteps = min(open.CheckpointEveryNSteps, 0)
	}
	var err error
	if open.Values, err = announceKept(req.Values); err != nil {
		return nil, nil, err
	}
	values := req.Values
	if req.Resume != nil {
		step := saturate(req.Resume.Step)
		open.ResumeStep = &step
		if open.Resume, err = Announce(req.Resume.Values); err != nil {
			return nil, nil, err
		}
		values = slices.Concat(req.Values, req.Resume.Values)
	}
	if _, err := openReceiver(open); err != nil {
		return nil, nil, err
	}
	return open, values, sendable(open)
}

// checkWanted checks that a peer wants what was announced, in order, and nothing else.
func checkWanted(in inbox[stagepb.WorkResponse], open *stagepb.WorkOpen, wanted []uint32) error {
	for i, index := range wanted {
		if i > 0 && index <= wanted[i-1] || int(index) >= len(open.GetValues())+len(open.GetResume()) {
			return in.unexpected("wanted values in order", fmt.Sprint(some(wanted, MaxValues)))
		}
	}
	return nil
}

// watchWork tells observer what the stage sends and returns the result.
func watchWork(in inbox[stagepb.WorkResponse], observer stage.Observer) (stage.Result, error) {
	for {
		m, err := in.recv()
		if errors.Is(err, io.EOF) {
			return stage.Result{}, in.unexpected("a result", "the end")
		}
		if err != nil {
			return stage.Result{}, err
		}
		switch p := m.GetPayload().(type) {
		case nil: // a newer peer's, of no concern to us
		case *stagepb.WorkResponse_Started:
			if observer.Ready != nil {
				observer.Ready(int(p.Started.GetSteps()))
			}
		case *stagepb.WorkResponse_Progress:
			if observer.Progress != nil {
				observer.Progress(int(p.Progress.GetStep()), int(p.Progress.GetSteps()))
			}
		case *stagepb.WorkResponse_Values:
			result, done, err := observeValues(in, p.Values, observer)
			if err != nil || done {
				return result, err
			}
		default:
			return stage.Result{}, in.unexpected("started, progress or values", payload(m))
		}
	}
}

// observeValues receives the values that were announced; done tells that they are the result.
func observeValues(in inbox[stagepb.WorkResponse], a *stagepb.WorkValues, observer stage.Observer) (result stage.Result, done bool, err error) {
	role := a.GetRole()
	if _, known := stagepb.WorkValues_Role_name[int32(role)]; !known || role == stagepb.WorkValues_ROLE_UNSPECIFIED {
		return result, false, in.unexpected("a role of values", fmt.Sprint(role))
	}
	r, err := NewReceiver(a.GetValues())
	if err != nil {
		return result, false, err
	}
	values, err := receive(in, r, (*stagepb.WorkResponse).GetChunk)
	if err != nil {
		return result, false, err
	}
	switch role {
	case stagepb.WorkValues_ROLE_PREVIEW:
		if observer.Preview != nil {
			observer.Preview(int(a.GetStep()), values)
		}
	case stagepb.WorkValues_ROLE_CHECKPOINT:
		if observer.Checkpoint != nil {
			observer.Checkpoint(stage.Checkpoint{Step: int(a.GetStep()), Values: values})
		}
	case stagepb.WorkValues_ROLE_UNIT:
		if len(values) != 1 || values[0].Units == 0 || observer.Unit == nil {
			return result, false, in.unexpected("one unit that was asked for", fmt.Sprintf("%d values", len(values)))
		}
		observer.Unit(values[0])
	case stagepb.WorkValues_ROLE_RESULT:
		result.Values = values
		result.Warnings = each(some(a.GetWarnings(), maxWarnings), func(w *stagepb.WorkWarning) stage.Warning {
			return stage.Warning{Code: clip(w.GetCode()), Message: clip(w.GetMessage())}
		})
		return result, true, end(in)
	}
	return result, false, nil
}
