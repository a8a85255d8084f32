package api

import (
	"context"
	"crypto/sha256"
	"fmt"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/triptych-serving/triptych/orchestrator/pipeline"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
)

// maxInline is the most image bytes in one message: grpc's default limit is 4 MiB.
const maxInline = 1 << 20

// emit turns an event of the pipeline into messages. An image waits for a slow reader, no longer than ctx lasts.
func emit(ctx context.Context, q *queue, event pipeline.Event) {
	switch e := event.(type) {
	case pipeline.Queued:
		q.push(&triptychv1alpha1.GenerateResponse{Event: &triptychv1alpha1.GenerateResponse_Queued{
			Queued: &triptychv1alpha1.Queued{Stage: e.Kind.String(), Position: int32(e.Position)},
		}}, "queued "+e.Kind.String())
	case pipeline.Loading:
		key := "loading " + e.Kind.String()
		if e.LoadedBytes == e.TotalBytes {
			key = "" // that a load has ended is not left out
		}
		q.push(&triptychv1alpha1.GenerateResponse{Event: &triptychv1alpha1.GenerateResponse_StageLoading{
			StageLoading: &triptychv1alpha1.StageLoading{Stage: e.Kind.String(), LoadedBytes: e.LoadedBytes, TotalBytes: e.TotalBytes},
		}}, key)
	case pipeline.Progress:
		q.push(&triptychv1alpha1.GenerateResponse{Event: &triptychv1alpha1.GenerateResponse_Progress{
			Progress: &triptychv1alpha1.Progress{Stage: e.Kind.String(), ImageIndex: int32(e.Image), Step: int32(e.Step), Steps: int32(e.Steps)},
		}}, fmt.Sprintf("progress %v %d", e.Kind, e.Image))
	case pipeline.Preview:
		q.push(&triptychv1alpha1.GenerateResponse{Event: &triptychv1alpha1.GenerateResponse_Preview{
			Preview: &triptychv1alpha1.Preview{ImageIndex: int32(e.Image), Step: int32(e.Step), MimeType: e.File.Format.MIMEType(), Data: e.File.Data},
		}}, fmt.Sprintf("preview %d", e.Image))
	case pipeline.Image:
		q.pushImage(ctx, imageParts(e))
	case pipeline.Residency:
		q.push(&triptychv1alpha1.GenerateResponse{Event: &triptychv1alpha1.GenerateResponse_Residency{Residency: residencyProto(e.Event)}}, "")
	case pipeline.Warning:
		q.push(&triptychv1alpha1.GenerateResponse{Event: &triptychv1alpha1.GenerateResponse_Warning{
			Warning: &triptychv1alpha1.Warning{Code: e.Code, Message: e.Message},
		}}, "")
	}
}

// imageParts are the messages of an image.
func imageParts(e pipeline.Image) []*triptychv1alpha1.GenerateResponse {
	data := e.Image.Data
	sum := sha256.Sum256(data)
	n := min(len(data), maxInline)
	parts := []*triptychv1alpha1.GenerateResponse{{Event: &triptychv1alpha1.GenerateResponse_ImageReady{ImageReady: &triptychv1alpha1.ImageReady{
		ImageIndex: int32(e.Index), Seed: e.Seed, MimeType: e.Image.Format.MIMEType(), WidthPx: int32(e.Image.WidthPx), HeightPx: int32(e.Image.HeightPx),
		SizeBytes: int64(len(data)), Sha256: sum[:], Data: data[:n],
	}}}}
	for at := n; at < len(data); at += maxInline {
		parts = append(parts, &triptychv1alpha1.GenerateResponse{Event: &triptychv1alpha1.GenerateResponse_ImageChunk{ImageChunk: &triptychv1alpha1.ImageChunk{
			ImageIndex: int32(e.Index), Offset: int64(at), Data: data[at:min(at+maxInline, len(data))],
		}}})
	}
	return parts
}

// specProto is a resolved request.
func specProto(s pipeline.Spec) *triptychv1alpha1.GenerationSpec {
	width, height, count, steps, quality := int32(s.WidthPx), int32(s.HeightPx), int32(s.ImageCount), int32(s.Steps), int32(s.Quality)
	return &triptychv1alpha1.GenerationSpec{
		Model: s.Model.Name, Prompt: s.Prompt, NegativePrompt: s.NegativePrompt, WidthPx: &width, HeightPx: &height,
		ImageCount: &count, Seed: &s.Seed, Steps: &steps, GuidanceScale: &s.GuidanceScale, Sampler: s.Sampler,
		Output:  &triptychv1alpha1.OutputOptions{Format: s.Format.String(), Quality: &quality, OmitMetadata: s.OmitMetadata},
		Preview: &triptychv1alpha1.PreviewOptions{EveryNSteps: int32(s.PreviewEveryNSteps)},
	}
}

func completed(s pipeline.Summary) *triptychv1alpha1.Completed {
	out := &triptychv1alpha1.Completed{Total: durationpb.New(s.Total), PeakBytes: s.PeakBytes}
	for _, u := range s.Stages {
		out.Stages = append(out.Stages, &triptychv1alpha1.StageUsage{
			Stage: u.Kind.String(), Queued: durationpb.New(u.Queued), Loading: durationpb.New(u.Loading), Running: durationpb.New(u.Running),
			WeightsBytes: u.Footprint.WeightsBytes, ScratchBytes: u.Footprint.ScratchBytes,
		})
	}
	return out
}
