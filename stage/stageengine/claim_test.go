package stageengine

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/stage"
)

// sharing is a device of which others hold some.
type sharing struct {
	share   stage.DeviceShare
	callers []string
	left    int64
}

func (s *sharing) Observe(orchestrator string, _ stage.Want) stage.DeviceShare {
	s.callers = append(s.callers, orchestrator)
	return s.share
}

func (s *sharing) Reserve(bytes int64) error {
	if bytes > s.left {
		return &device.BusyError{NeededBytes: bytes, AvailableBytes: s.left, OthersBytes: s.share.ForeignBytes, AwaitedBytes: 1, BudgetBytes: s.share.BudgetBytes}
	}
	s.left -= bytes
	return nil
}

func (s *sharing) Release(bytes int64) { s.left += bytes }

// TestSharedDevice: a stage tells what others hold, and refuses what they leave no room for as something that may pass.
func TestSharedDevice(t *testing.T) {
	const model = "tiny-sd15"
	library, err := OpenLibrary(filepath.Join(repo, "testdata/golden", model))
	if err != nil {
		t.Fatal(err)
	}
	claim := &sharing{share: stage.DeviceShare{BudgetBytes: 100, ForeignBytes: 60, ForeignWants: []stage.Want{{Bytes: 1, Since: time.Unix(1, 0)}}, Claim: "l"}}
	dev, err := cpu.New(cpu.Options{Threads: 1, MemoryCapBytes: 1 << 30, Claim: claim})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dev.Close() })
	e := newStage(stage.KindEncoder, Options{Library: library, Device: dev, Claim: claim})
	info, err := e.Info(stage.WithCaller(t.Context(), stage.Caller{Orchestrator: "a"}))
	got := stage.DeviceShare{BudgetBytes: info.MemoryBudgetBytes, ForeignBytes: info.ForeignBytes, ForeignWants: info.ForeignWants, Claim: info.DeviceClaims}
	if err != nil || !cmp.Equal(got, claim.share) || claim.callers[0] != "a" {
		t.Errorf("%+v for %q, %v", got, claim.callers, err)
	}
	refused := func(err error) {
		t.Helper()
		var e *stage.Error
		if !errors.As(err, &e) || e.Reason != stage.DeviceBusy || e.Metadata["others_bytes"] != "60" || e.Metadata["awaited_bytes"] != "1" || e.Metadata["model"] != model {
			t.Errorf("got %v with %+v", err, e)
		}
	}
	refused(e.Load(t.Context(), stage.LoadRequest{Component: partOf(e, model)}, nil))
	claim.left = e.books[partOf(e, model)].component.WeightsBytes
	if err := e.Load(t.Context(), stage.LoadRequest{Component: partOf(e, model)}, nil); err != nil {
		t.Fatal(err)
	}
	_, err = encode(t.Context(), e, model, "fox")
	refused(err)
	if _, err := e.Evict(t.Context(), stage.EvictRequest{Component: partOf(e, model)}); err != nil || claim.left != e.books[partOf(e, model)].component.WeightsBytes {
		t.Errorf("%d bytes are left: %v", claim.left, err)
	}
}
