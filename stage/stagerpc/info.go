package stagerpc

import (
	"math"
	"time"

	stagepb "github.com/triptych-serving/triptych/proto/triptych/stage/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
)

func infoToProto(i stage.Info) *stagepb.GetStageInfoResponse {
	return &stagepb.GetStageInfoResponse{
		Protocol: Protocol, Kind: kinds[i.Kind], Version: clip(i.Version),
		Host: clip(i.Host), Device: clip(i.Device), MemoryBudgetBytes: i.MemoryBudgetBytes,
		UsedBytes: i.UsedBytes, PeakBytes: i.PeakBytes, RuntimeGeneration: i.Generation, Draining: i.Draining,
		Releases: i.Releases, ReleasedBytes: i.ReleasedBytes, WarmBudgetBytes: i.WarmBudgetBytes,
		Planning: clip(i.Planning), OverheadBytes: i.OverheadBytes, Compute: clip(i.Compute), Instance: clip(i.Instance),
		ForeignBytes: i.ForeignBytes, DeviceClaims: clip(i.DeviceClaims), ForeignWants: each(some(i.ForeignWants, maxWants), wantToProto),
		Models: each(some(i.Models, maxModels), modelToProto), Components: each(some(i.Components, maxModels), componentToProto),
		Resident: each(some(i.Resident, maxModels), residentToProto), Warm: each(some(i.Warm, maxModels), residentToProto),
	}
}

func infoFromProto(res *stagepb.GetStageInfoResponse) stage.Info {
	return stage.Info{
		Kind: keyOf(kinds, res.GetKind()), Version: clip(res.GetVersion()),
		Host: res.GetHost(), Device: res.GetDevice(), MemoryBudgetBytes: res.GetMemoryBudgetBytes(),
		UsedBytes: res.GetUsedBytes(), PeakBytes: res.GetPeakBytes(), Generation: res.GetRuntimeGeneration(), Draining: res.GetDraining(),
		Releases: res.GetReleases(), ReleasedBytes: res.GetReleasedBytes(), WarmBudgetBytes: max(0, res.GetWarmBudgetBytes()),
		Planning: res.GetPlanning(), OverheadBytes: max(0, res.GetOverheadBytes()), Compute: clip(res.GetCompute()), Instance: res.GetInstance(),
		ForeignBytes: max(0, res.GetForeignBytes()), DeviceClaims: res.GetDeviceClaims(), ForeignWants: each(some(res.GetForeignWants(), maxWants), wantFromProto),
		Models: each(some(res.GetModels(), maxModels), modelFromProto), Components: each(some(res.GetComponents(), maxModels), componentFromProto),
		Resident: each(some(res.GetResident(), maxModels), residentFromProto), Warm: each(some(res.GetWarm(), maxModels), residentFromProto),
	}
}

func residentToProto(c stage.ResidentComponent) *stagepb.ResidentComponent {
	return &stagepb.ResidentComponent{Component: clip(c.Name), WeightsBytes: c.WeightsBytes, Stale: clip(c.Stale)}
}

func residentFromProto(c *stagepb.ResidentComponent) stage.ResidentComponent {
	return stage.ResidentComponent{Name: c.GetComponent(), WeightsBytes: c.GetWeightsBytes(), Stale: clip(c.GetStale())}
}

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
	return &stagepb.ComponentInfo{
		Name: clip(c.Name), Model: clip(c.Model), WeightsBytes: c.WeightsBytes, Stamp: clip(c.Stamp), Identity: clip(c.Identity),
		Digest: clip(c.Digest), Problem: clip(c.Problem), Warnings: clipped(c.Warnings, maxWarnings),
	}
}

func componentFromProto(c *stagepb.ComponentInfo) stage.Component {
	return stage.Component{
		Name: c.GetName(), Model: c.GetModel(), WeightsBytes: c.GetWeightsBytes(), Edition: stage.Edition{Stamp: c.GetStamp(), Identity: c.GetIdentity()},
		Digest: c.GetDigest(), Problem: clip(c.GetProblem()), Warnings: clipped(c.GetWarnings(), maxWarnings),
	}
}

// saturate narrows a number for the wire. What saturates is far beyond any limit of a stage, so the
// stage refuses it like the number that was meant.
func saturate(n int) int32 { return int32(min(max(n, math.MinInt32), math.MaxInt32)) }
