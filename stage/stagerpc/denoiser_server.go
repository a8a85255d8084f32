package stagerpc

import (
	"context"
	"log/slog"

	stagepb "github.com/triptych-serving/triptych/proto/triptych/stage/v1alpha1"
	tensorpb "github.com/triptych-serving/triptych/proto/triptych/tensor/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"google.golang.org/grpc"
)

// RegisterDenoiser serves d as StageService and DenoiserService. log gets the causes of errors that
// callers do not see (see ToStatus).
func RegisterDenoiser(s grpc.ServiceRegistrar, d stage.Denoiser, log *slog.Logger) {
	edge := newEdge(stage.KindDenoiser, log)
	registerResident(s, d, edge)
	stagepb.RegisterDenoiserServiceServer(s, &denoiserServer{stage: d, edge: edge})
}

type denoiserServer struct {
	stagepb.UnimplementedDenoiserServiceServer
	stage stage.Denoiser
	edge  edge
}

type denoiseServerStream = grpc.BidiStreamingServer[stagepb.DenoiseRequest, stagepb.DenoiseResponse]

func (s *denoiserServer) Denoise(stream denoiseServerStream) error {
	return s.edge.status(stream.Context(), s.denoise(stream))
}

func (s *denoiserServer) denoise(stream denoiseServerStream) error {
	in, send := serverInbox(stream), serverOutbox(stream)
	open, err := first(in, "open", (*stagepb.DenoiseRequest).GetOpen)
	if err != nil {
		return err
	}
	r, err := denoiseReceiver(open)
	if err != nil {
		return err
	}
	if err := send(&stagepb.DenoiseResponse{Payload: &stagepb.DenoiseResponse_Ready{Ready: &stagepb.DenoiseReady{}}}); err != nil {
		return err
	}
	tensors, err := receiveTensors(in, r, (*stagepb.DenoiseRequest).GetChunk)
	if err != nil {
		return err
	}
	if err := end(in); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(Incoming(stream.Context()))
	defer cancel()
	out := noted(send, cancel)
	latent, err := s.stage.Denoise(ctx, denoiseFromOpen(open, tensors), reporter(out))
	if err := out.instead(err); err != nil {
		return err
	}
	reportTensors(out, stagepb.DenoiseTensors_ROLE_RESULT, 0, stage.NamedTensor{Name: latents, Tensor: latent.Tensor})
	return out.err
}

// denoiseReceiver checks the tensors that open announces.
func denoiseReceiver(open *stagepb.DenoiseOpen) (*Receiver, error) {
	specs := open.GetTensors()
	if len(specs) == 0 || (open.ResumeStep == nil && len(specs) > 1) {
		return nil, conditioningForm.check(specs...)
	}
	if _, err := NewReceiver(specs[:1], MaxConditioningBytes); err != nil {
		return nil, err
	}
	if err := conditioningForm.check(specs[0]); err != nil {
		return nil, err
	}
	return NewReceiver(specs, MaxTensorBytes)
}

// denoiseFromOpen is the inverse of denoiseToOpen.
func denoiseFromOpen(open *stagepb.DenoiseOpen, tensors []stage.NamedTensor) stage.DenoiseRequest {
	req := stage.DenoiseRequest{
		Model: open.GetModel(), Conditioning: stage.Conditioning{States: tensors[0].Tensor},
		LatentHeight: int(open.GetLatentHeight()), LatentWidth: int(open.GetLatentWidth()),
		Steps: int(open.GetSteps()), GuidanceScale: open.GetGuidanceScale(), Sampler: open.GetSampler(), Seed: open.GetSeed(),
		PreviewEveryNSteps: int(open.GetPreviewEveryNSteps()), CheckpointEveryNSteps: int(open.GetCheckpointEveryNSteps()),
	}
	if open.ResumeStep != nil {
		req.Resume = &stage.Checkpoint{Step: int(open.GetResumeStep()), Tensors: tensors[1:]}
	}
	return req
}

// reporter is an observer that tells the caller.
func reporter(out *notebook[stagepb.DenoiseResponse]) stage.DenoiseObserver {
	return stage.DenoiseObserver{
		Ready: func(evaluations int, sampler string) {
			out.send(&stagepb.DenoiseResponse{Payload: &stagepb.DenoiseResponse_Started{
				Started: &stagepb.DenoiseStarted{Evaluations: saturate(evaluations), Sampler: clip(sampler)},
			}})
		},
		Progress: func(done, evaluations int) {
			out.send(&stagepb.DenoiseResponse{Payload: &stagepb.DenoiseResponse_Progress{
				Progress: &stagepb.DenoiseProgress{Step: saturate(done), Steps: saturate(evaluations)},
			}})
		},
		Preview: func(done int, estimate stage.Latent) {
			reportTensors(out, stagepb.DenoiseTensors_ROLE_PREVIEW, done, stage.NamedTensor{Name: latents, Tensor: estimate.Tensor})
		},
		Checkpoint: func(c stage.Checkpoint) {
			reportTensors(out, stagepb.DenoiseTensors_ROLE_CHECKPOINT, c.Step, c.Tensors...)
		},
	}
}

func reportTensors(out *notebook[stagepb.DenoiseResponse], role stagepb.DenoiseTensors_Role, step int, tensors ...stage.NamedTensor) {
	specs, err := announceResult(tensors)
	if err != nil {
		out.fail(err)
		return
	}
	out.send(&stagepb.DenoiseResponse{Payload: &stagepb.DenoiseResponse_Tensors{
		Tensors: &stagepb.DenoiseTensors{Role: role, Step: saturate(step), Tensors: specs},
	}})
	out.fail(SendTensors(tensors, func(c *tensorpb.TensorChunk) error {
		out.send(&stagepb.DenoiseResponse{Payload: &stagepb.DenoiseResponse_Chunk{Chunk: c}})
		return out.err
	}))
}
