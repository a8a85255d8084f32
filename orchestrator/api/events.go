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
			Queued: &triptychv1alpha1.Queued{Stage: e.Kind.String(), Position: int32(e.Position), Reason: e.Reason},
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
			Progress: progressProto(e),
		}}, fmt.Sprintf("progress %s %d %d", e.Turn, e.Image, e.Unit))
	case pipeline.Preview:
		q.push(&triptychv1alpha1.GenerateResponse{Event: &triptychv1alpha1.GenerateResponse_Preview{
			Preview: &triptychv1alpha1.Preview{ImageIndex: int32(e.Image), Unit: int32(e.Unit), Step: int32(e.Step), MimeType: e.File.Media, Data: e.File.Data},
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

func progressProto(e pipeline.Progress) *triptychv1alpha1.Progress {
	return &triptychv1alpha1.Progress{
		Stage: e.Kind.String(), Turn: e.Turn, ImageIndex: int32(e.Image), Unit: int32(e.Unit), Step: int32(e.Step), Steps: int32(e.Steps),
	}
}

// imageParts are the messages of an image.
func imageParts(e pipeline.Image) []*triptychv1alpha1.GenerateResponse {
	data := e.File.Data
	sum := sha256.Sum256(data)
	n := min(len(data), maxInline)
	parts := []*triptychv1alpha1.GenerateResponse{{Event: &triptychv1alpha1.GenerateResponse_ImageReady{ImageReady: &triptychv1alpha1.ImageReady{
		ImageIndex: int32(e.Index), Unit: int32(e.Unit), Units: int32(e.Units), Seed: e.Seed,
		MimeType: e.File.Media, WidthPx: int32(e.File.WidthPx), HeightPx: int32(e.File.HeightPx),
		SizeBytes: int64(len(data)), Sha256: sum[:], Data: data[:n],
	}}}}
	for at := n; at < len(data); at += maxInline {
		parts = append(parts, &triptychv1alpha1.GenerateResponse{Event: &triptychv1alpha1.GenerateResponse_ImageChunk{ImageChunk: &triptychv1alpha1.ImageChunk{
			ImageIndex: int32(e.Index), Unit: int32(e.Unit), Offset: int64(at), Data: data[at:min(at+maxInline, len(data))],
		}}})
	}
	return parts
}

func completed(s pipeline.Summary) *triptychv1alpha1.Completed {
	out := &triptychv1alpha1.Completed{Total: durationpb.New(s.Total), PeakBytes: s.PeakBytes}
	for _, u := range s.Stages {
		out.Stages = append(out.Stages, &triptychv1alpha1.StageUsage{
			Stage: u.Kind.String(), Queued: durationpb.New(u.Queued), Loading: durationpb.New(u.Loading), Running: durationpb.New(u.Running),
			WeightsBytes: u.WeightsBytes, ScratchBytes: u.ScratchBytes, Compute: u.Compute,
		})
	}
	return out
}
