package stagerpc

import (
	"context"
	"fmt"
	"slices"

	stagepb "github.com/triptych-serving/triptych/proto/triptych/stage/v1alpha1"
	tensorpb "github.com/triptych-serving/triptych/proto/triptych/tensor/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"google.golang.org/grpc"
)

// workServer serves the work of a stage.
type workServer struct {
	stagepb.UnimplementedWorkServiceServer
	stage stage.Stage
	edge  edge
	kept  kept
}

type workStream = grpc.BidiStreamingServer[stagepb.WorkRequest, stagepb.WorkResponse]

func (s *workServer) Work(stream workStream) error {
	return s.edge.status(stream.Context(), s.work(stream))
}

func (s *workServer) work(stream workStream) error {
	in, send := serverInbox(stream), serverOutbox(stream)
	open, err := first(in, "open", (*stagepb.WorkRequest).GetOpen)
	if err != nil {
		return err
	}
	req, err := workFromOpen(open)
	if err != nil {
		return err
	}
	r, err := openReceiver(open)
	if err != nil {
		return err
	}
	s.kept.fill(r)
	if err := send(&stagepb.WorkResponse{Payload: &stagepb.WorkResponse_Ready{Ready: &stagepb.WorkReady{Wanted: r.Wanted()}}}); err != nil {
		return err
	}
	values, err := receive(in, r, (*stagepb.WorkRequest).GetChunk)
	if err != nil {
		return err
	}
	if err := end(in); err != nil {
		return err
	}
	s.kept.keep(r)
	n := len(open.GetValues())
	if req.Values = values[:n:n]; req.Resume != nil {
		req.Resume.Values = values[n:]
	}
	ctx, cancel := context.WithCancel(Incoming(stream.Context()))
	defer cancel()
	out := &notebook[stagepb.WorkResponse]{out: send, stop: cancel}
	result, err := s.stage.Work(ctx, req, reporter(out, open.GetUnits()))
	if err := out.instead(err); err != nil {
		return err
	}
	report(out, &stagepb.WorkValues{Role: stagepb.WorkValues_ROLE_RESULT, Warnings: each(some(result.Warnings, maxWarnings), warningToProto)}, result.Values)
	return out.err
}

func warningToProto(w stage.Warning) *stagepb.WorkWarning {
	return &stagepb.WorkWarning{Code: clip(w.Code), Message: clip(w.Message)}
}

// TurnOf is the turn that a message of a caller opens, for logs; empty if it opens none.
func TurnOf(m any) string {
	req, _ := m.(*stagepb.WorkRequest)
	return stage.Excerpt(req.GetOpen().GetTurn(), MaxNameBytes)
}

// openReceiver checks the values that open announces. What is resumed from is not kept: it comes once.
func openReceiver(open *stagepb.WorkOpen) (*Receiver, error) {
	if open.ResumeStep == nil && len(open.GetResume()) > 0 {
		return nil, stage.Invalid(stage.InvalidField, "resume_step", "", "a step, since there are values to resume from")
	}
	if i := slices.IndexFunc(open.GetResume(), func(s *stagepb.ValueSpec) bool { return len(s.GetSha256()) > 0 }); i >= 0 {
		return nil, stage.Invalid(stage.InvalidField, fmt.Sprintf("resume[%d].sha256", i), fmt.Sprintf("%x", open.GetResume()[i].GetSha256()), "none")
	}
	return NewReceiver(slices.Concat(open.GetValues(), open.GetResume()))
}

// workFromOpen is a request without its values.
func workFromOpen(open *stagepb.WorkOpen) (stage.WorkRequest, error) {
	options, err := requested(open.GetComponents(), open.GetOptions())
	req := stage.WorkRequest{
		Turn: open.GetTurn(), Components: open.GetComponents(), Options: options, Seed: open.GetSeed(),
		PreviewEveryNSteps: int(open.GetPreviewEveryNSteps()), CheckpointEveryNSteps: int(open.GetCheckpointEveryNSteps()),
	}
	if open.ResumeStep != nil {
		req.Resume = &stage.Checkpoint{Step: int(open.GetResumeStep())}
	}
	return req, err
}

// reporter is an observer that tells the caller.
func reporter(out *notebook[stagepb.WorkResponse], units bool) stage.Observer {
	o := stage.Observer{
		Ready: func(steps int) {
			out.send(&stagepb.WorkResponse{Payload: &stagepb.WorkResponse_Started{Started: &stagepb.WorkStarted{Steps: saturate(steps)}}})
		},
		Progress: func(done, steps int) {
			out.send(&stagepb.WorkResponse{Payload: &stagepb.WorkResponse_Progress{
				Progress: &stagepb.WorkProgress{Step: saturate(done), Steps: saturate(steps)},
			}})
		},
		Preview: func(done int, estimate stage.Values) {
			report(out, &stagepb.WorkValues{Role: stagepb.WorkValues_ROLE_PREVIEW, Step: saturate(done)}, estimate)
		},
		Checkpoint: func(c stage.Checkpoint) {
			report(out, &stagepb.WorkValues{Role: stagepb.WorkValues_ROLE_CHECKPOINT, Step: saturate(c.Step)}, c.Values)
		},
	}
	if units {
		o.Unit = func(v stage.Value) {
			report(out, &stagepb.WorkValues{Role: stagepb.WorkValues_ROLE_UNIT}, stage.Values{v})
		}
	}
	return o
}

// report announces and sends what a stage made: what is wrong with it is the stage's own fault.
func report(out *notebook[stagepb.WorkResponse], a *stagepb.WorkValues, values stage.Values) {
	specs, err := Announce(values)
	if err != nil {
		out.fail(fault("the stage made a value that cannot be sent", err))
		return
	}
	a.Values = specs
	out.send(&stagepb.WorkResponse{Payload: &stagepb.WorkResponse_Values{Values: a}})
	out.fail(Send(values, every(len(values)), func(c *tensorpb.TensorChunk) error {
		out.send(&stagepb.WorkResponse{Payload: &stagepb.WorkResponse_Chunk{Chunk: c}})
		return out.err
	}))
}
