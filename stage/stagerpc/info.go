package stagerpc

import (
	"cmp"
	"math"
	"time"

	stagepb "github.com/triptych-serving/triptych/proto/triptych/stage/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
)

// kinds pairs the kinds of stage with their numbers on the wire.
var kinds = map[stage.Kind]stagepb.StageKind{
	stage.KindEncoder:  stagepb.StageKind_STAGE_KIND_ENCODER,
	stage.KindDenoiser: stagepb.StageKind_STAGE_KIND_DENOISER,
	stage.KindDecoder:  stagepb.StageKind_STAGE_KIND_DECODER,
}

func kindFromProto(k stagepb.StageKind) stage.Kind {
	for kind, wire := range kinds {
		if wire == k {
			return kind
		}
	}
	return 0
}

func infoToProto(i stage.Info) *stagepb.GetStageInfoResponse {
	res := &stagepb.GetStageInfoResponse{
		Protocol: Protocol, Kind: kinds[i.Kind], Version: clip(i.Version),
		Host: clip(i.Host), Device: clip(i.Device), MemoryBudgetBytes: i.MemoryBudgetBytes,
		UsedBytes: i.UsedBytes, PeakBytes: i.PeakBytes, RuntimeGeneration: i.Generation, Draining: i.Draining,
		Releases: i.Releases, ReleasedBytes: i.ReleasedBytes, WarmBudgetBytes: i.WarmBudgetBytes,
	}
	res.ForeignBytes, res.DeviceLease = i.ForeignBytes, clip(i.DeviceLease)
	for _, w := range i.ForeignWants[:min(len(i.ForeignWants), maxWants)] {
		res.ForeignWants = append(res.ForeignWants, wantToProto(w))
	}
	for _, c := range i.Models {
		res.Models = append(res.Models, componentToProto(c))
	}
	res.Resident, res.Warm = residentToProto(i.Resident), residentToProto(i.Warm)
	return res
}

func residentToProto(models []stage.ResidentModel) (out []*stagepb.ResidentComponent) {
	for _, m := range models {
		out = append(out, &stagepb.ResidentComponent{Model: clip(m.Model), WeightsBytes: m.WeightsBytes, Stale: clip(m.Stale)})
	}
	return out
}

func infoFromProto(res *stagepb.GetStageInfoResponse) stage.Info {
	i := stage.Info{
		Kind: kindFromProto(res.GetKind()), Version: res.GetVersion(),
		Host: res.GetHost(), Device: res.GetDevice(), MemoryBudgetBytes: res.GetMemoryBudgetBytes(),
		UsedBytes: res.GetUsedBytes(), PeakBytes: res.GetPeakBytes(), Generation: res.GetRuntimeGeneration(), Draining: res.GetDraining(),
		Releases: res.GetReleases(), ReleasedBytes: res.GetReleasedBytes(), WarmBudgetBytes: max(0, res.GetWarmBudgetBytes()),
	}
	i.ForeignBytes, i.DeviceLease = max(0, res.GetForeignBytes()), res.GetDeviceLease()
	for _, w := range res.GetForeignWants()[:min(len(res.GetForeignWants()), maxWants)] {
		i.ForeignWants = append(i.ForeignWants, wantFromProto(w))
	}
	for _, c := range res.GetModels() {
		i.Models = append(i.Models, componentFromProto(c))
	}
	i.Resident, i.Warm = residentFromProto(res.GetResident()), residentFromProto(res.GetWarm())
	return i
}

func residentFromProto(models []*stagepb.ResidentComponent) (out []stage.ResidentModel) {
	for _, m := range models {
		out = append(out, stage.ResidentModel{Model: m.GetModel(), WeightsBytes: m.GetWeightsBytes(), Stale: m.GetStale()})
	}
	return out
}

// maxWants bounds what is told of others' wishes; the oldest come first.
const maxWants = 16

func wantToProto(w stage.Want) *stagepb.DeviceWant {
	if w.Since.IsZero() {
		return nil
	}
	return &stagepb.DeviceWant{Bytes: w.Bytes, SinceUnixNanos: w.Since.UnixNano()}
}

// wantFromProto is nothing if there is none, or it makes no sense.
func wantFromProto(w *stagepb.DeviceWant) stage.Want {
	if w.GetBytes() < 0 || w.GetSinceUnixNanos() <= 0 {
		return stage.Want{}
	}
	return stage.Want{Bytes: w.GetBytes(), Since: time.Unix(0, w.GetSinceUnixNanos())}
}

func componentToProto(c stage.Component) *stagepb.ComponentInfo {
	info := &stagepb.ComponentInfo{
		Model: clip(c.Model), WeightsBytes: c.WeightsBytes, MaxTokens: saturate(c.MaxTokens), ContextDim: saturate(c.ContextDim),
		LatentChannels: saturate(c.LatentChannels), LatentMultiple: saturate(c.LatentMultiple), LatentDefault: saturate(c.LatentDefaultWidth), LatentDefaultHeight: saturate(c.LatentDefaultHeight),
		DefaultSampler: clip(c.DefaultSampler), SamplerProblem: clip(c.SamplerProblem), SpatialFactor: saturate(c.SpatialFactor), Problem: clip(c.Problem), Digest: clip(c.Digest), Stamp: clip(c.Stamp), Identity: clip(c.Identity),
	}
	for _, s := range c.Samplers {
		info.Samplers = append(info.Samplers, clip(s))
	}
	for _, w := range c.Warnings {
		info.Warnings = append(info.Warnings, clip(w))
	}
	return info
}

func componentFromProto(c *stagepb.ComponentInfo) stage.Component {
	return stage.Component{
		Model: c.GetModel(), WeightsBytes: c.GetWeightsBytes(), MaxTokens: int(c.GetMaxTokens()), ContextDim: int(c.GetContextDim()),
		LatentChannels: int(c.GetLatentChannels()), LatentMultiple: int(c.GetLatentMultiple()),
		LatentDefaultWidth: int(c.GetLatentDefault()), LatentDefaultHeight: int(cmp.Or(c.GetLatentDefaultHeight(), c.GetLatentDefault())),
		Samplers: c.GetSamplers(), DefaultSampler: c.GetDefaultSampler(), SamplerProblem: c.GetSamplerProblem(), SpatialFactor: int(c.GetSpatialFactor()), Problem: c.GetProblem(), Digest: c.GetDigest(), Edition: stage.Edition{Stamp: c.GetStamp(), Identity: c.GetIdentity()},
		Warnings: c.GetWarnings(),
	}
}

// saturate narrows a number for the wire. What saturates is far beyond any limit of a stage, so the
// stage refuses it like the number that was meant.
func saturate(n int) int32 { return int32(min(max(n, math.MinInt32), math.MaxInt32)) }
