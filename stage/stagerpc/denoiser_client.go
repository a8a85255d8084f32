package stagerpc

import (
	"context"
	"errors"
	"fmt"
	"io"

	stagepb "github.com/triptych-serving/triptych/proto/triptych/stage/v1alpha1"
	tensorpb "github.com/triptych-serving/triptych/proto/triptych/tensor/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"google.golang.org/grpc"
)

// NewDenoiser is the denoiser at the other end of conn. DroppedTokens of a conditioning stay here.
func NewDenoiser(conn grpc.ClientConnInterface) stage.Denoiser {
	conn = As(conn, "")
	return &denoiser{resident: newResident(conn, stage.KindDenoiser), rpc: stagepb.NewDenoiserServiceClient(conn)}
}

type denoiser struct {
	resident
	rpc stagepb.DenoiserServiceClient
}

func (d *denoiser) Denoise(ctx context.Context, req stage.DenoiseRequest, observer stage.DenoiseObserver) (stage.Latent, error) {
	open, tensors, err := denoiseToOpen(req, observer)
	if err != nil {
		return stage.Latent{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := d.rpc.Denoise(ctx)
	if err != nil {
		return stage.Latent{}, FromStatus(err, d.kind)
	}
	in := clientInbox(stream, d.kind)
	send := clientOutbox(stream, in, d.kind)
	if err := send(&stagepb.DenoiseRequest{Payload: &stagepb.DenoiseRequest_Open{Open: open}}); err != nil {
		return stage.Latent{}, err
	}
	if _, err := first(in, "ready", (*stagepb.DenoiseResponse).GetReady); err != nil {
		return stage.Latent{}, err
	}
	err = SendTensors(tensors, func(c *tensorpb.TensorChunk) error {
		return send(&stagepb.DenoiseRequest{Payload: &stagepb.DenoiseRequest_Chunk{Chunk: c}})
	})
	if err != nil {
		return stage.Latent{}, err
	}
	if err := stream.CloseSend(); err != nil {
		return stage.Latent{}, FromStatus(err, d.kind)
	}
	return watchDenoise(in, observer)
}

// denoiseToOpen makes everything but tensor bytes, and the tensors to send. What nobody observes is
// not asked for.
func denoiseToOpen(req stage.DenoiseRequest, observer stage.DenoiseObserver) (*stagepb.DenoiseOpen, []stage.NamedTensor, error) {
	open := &stagepb.DenoiseOpen{
		Model: req.Model, LatentHeight: saturate(req.LatentHeight), LatentWidth: saturate(req.LatentWidth),
		Steps: saturate(req.Steps), GuidanceScale: req.GuidanceScale, Sampler: req.Sampler, Seed: req.Seed,
		PreviewEveryNSteps: saturate(req.PreviewEveryNSteps), CheckpointEveryNSteps: saturate(req.CheckpointEveryNSteps),
	}
	if observer.Preview == nil {
		open.PreviewEveryNSteps = min(open.PreviewEveryNSteps, 0)
	}
	if observer.Checkpoint == nil {
		open.CheckpointEveryNSteps = min(open.CheckpointEveryNSteps, 0)
	}
	tensors := []stage.NamedTensor{{Name: hiddenStates, Tensor: req.Conditioning.States}}
	if req.Resume != nil {
		step := saturate(req.Resume.Step)
		open.ResumeStep = &step
		tensors = append(tensors, req.Resume.Tensors...)
	}
	specs, err := Announce(tensors)
	if err != nil {
		return nil, nil, err
	}
	open.Tensors = specs
	if _, err := denoiseReceiver(open); err != nil {
		return nil, nil, err
	}
	return open, tensors, sendable(open)
}

// watchDenoise tells observer what the stage sends and returns the result.
func watchDenoise(in inbox[stagepb.DenoiseResponse], observer stage.DenoiseObserver) (stage.Latent, error) {
	for {
		m, err := in.recv()
		if errors.Is(err, io.EOF) {
			return stage.Latent{}, in.unexpected("a result", "the end")
		}
		if err != nil {
			return stage.Latent{}, err
		}
		switch p := m.GetPayload().(type) {
		case nil: // a newer peer's, of no concern to us
		case *stagepb.DenoiseResponse_Started:
			if observer.Ready != nil {
				observer.Ready(int(p.Started.GetEvaluations()), p.Started.GetSampler())
			}
		case *stagepb.DenoiseResponse_Progress:
			if observer.Progress != nil {
				observer.Progress(int(p.Progress.GetStep()), int(p.Progress.GetSteps()))
			}
		case *stagepb.DenoiseResponse_Tensors:
			latent, done, err := observeTensors(in, p.Tensors, observer)
			if err != nil || done {
				return latent, err
			}
		default:
			return stage.Latent{}, in.unexpected("started, progress or tensors", payload(m))
		}
	}
}

// observeTensors receives the tensors that were announced; done tells that they are the result.
func observeTensors(in inbox[stagepb.DenoiseResponse], a *stagepb.DenoiseTensors, observer stage.DenoiseObserver) (latent stage.Latent, done bool, err error) {
	role, limit := a.GetRole(), int64(MaxLatentBytes)
	if role == stagepb.DenoiseTensors_ROLE_CHECKPOINT {
		limit = MaxTensorBytes
	}
	r, err := NewReceiver(a.GetTensors(), limit)
	if err != nil {
		return latent, false, err
	}
	switch role {
	case stagepb.DenoiseTensors_ROLE_CHECKPOINT:
	case stagepb.DenoiseTensors_ROLE_PREVIEW, stagepb.DenoiseTensors_ROLE_RESULT:
		if err := latentForm.check(a.GetTensors()...); err != nil {
			return latent, false, err
		}
	default:
		return latent, false, in.unexpected("a role of tensors", fmt.Sprint(role))
	}
	tensors, err := receiveTensors(in, r, (*stagepb.DenoiseResponse).GetChunk)
	if err != nil {
		return latent, false, err
	}
	switch role {
	case stagepb.DenoiseTensors_ROLE_PREVIEW:
		if observer.Preview != nil {
			observer.Preview(int(a.GetStep()), stage.Latent{Tensor: tensors[0].Tensor})
		}
	case stagepb.DenoiseTensors_ROLE_CHECKPOINT:
		if observer.Checkpoint != nil {
			observer.Checkpoint(stage.Checkpoint{Step: int(a.GetStep()), Tensors: tensors})
		}
	case stagepb.DenoiseTensors_ROLE_RESULT:
		if err := end(in); err != nil {
			return latent, false, err
		}
		return stage.Latent{Tensor: tensors[0].Tensor}, true, nil
	}
	return latent, false, nil
}
