//go:build linux

package e2e

import (
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
)

// faults is the variable that makes allocations of runtimes fail: see cmd/triptych.
const faults = "TRIPTYCH_TEST_FAULTS"

// TestOutOfMemory: a runtime whose allocation fails, in a load or at work, is asked once more when all that is
// idle has been evicted, and the picture is the same; when it fails again the error is typed and has the numbers.
// No process ends of it, and the next request is served.
func TestOutOfMemory(t *testing.T) {
	spec := &triptychv1alpha1.GenerationSpec{Prompt: "fox", Seed: ptr(uint64(3)), Steps: ptr(int32(2))}
	_, sum, want := footprints(t, spec)
	for name, c := range map[string]struct {
		faults string
		fails  string // reason, empty if the request succeeds
	}{
		// A runtime's first allocation is a load's, the encoder's second too; then comes the scratch of work.
		"load":              {"denoiser alloc 1", ""},
		"denoiser, at work": {"denoiser alloc 2", ""},
		"encoder, at work":  {"encoder alloc 3", ""},
		"load, always":      {"denoiser alloc 1-3", "MODEL_DOES_NOT_FIT"}, // the first may be a prefetch
		"work, twice":       {"denoiser alloc 2-3", "ENGINE_OOM_UNPLANNED"},
		"decoder, twice":    {"decoder alloc 2-3", "ENGINE_OOM_UNPLANNED"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			t.Setenv(faults, c.faults)
			budget := sum + 16<<20
			s := up(t, "--memory-budget", strconv.FormatInt(budget, 10))
			family := descendants(t, s.cmd.Process.Pid)
			events, err := s.generate(t.Context(), spec, nil)
			evicted := false
			for _, e := range events {
				r := e.GetResidency()
				evicted = evicted || r.GetAction() == triptychv1alpha1.ResidencyEvent_ACTION_EVICT && r.GetClass() == triptychv1alpha1.ResidencyEvent_CLASS_OUT_OF_MEMORY
				if r.GetUsedBytes() > budget {
					t.Errorf("%d bytes are reserved of %d: %v", r.GetUsedBytes(), budget, r)
				}
			}
			if !evicted && name != "load" { // it may have been a prefetch, which is not worth an eviction
				t.Error("nothing idle was evicted for it")
			}
			if c.fails == "" {
				if err != nil {
					t.Fatal(err)
				}
				same(t, want, images(t, events))
			} else {
				info := errorInfo(err)
				needed, _ := strconv.ParseInt(info.GetMetadata()["needed_bytes"], 10, 64)
				available, _ := strconv.ParseInt(info.GetMetadata()["available_bytes"], 10, 64)
				if code := status.Code(err); code != codes.FailedPrecondition && code != codes.Internal || info.GetReason() != c.fails || needed <= 0 || available <= 0 {
					t.Errorf("ended with %v, %v", err, info)
				}
			}
			if events, err = s.generate(t.Context(), spec, nil); err != nil {
				t.Fatalf("the request after: %v", err)
			}
			same(t, want, images(t, events))
			for pid, args := range family {
				if !alive(pid) {
					t.Errorf("process %d has ended: %s", pid, args)
				}
			}
			if !strings.Contains(s.log.String(), faults) {
				t.Error("no runtime said that its allocations are made to fail")
			}
		})
	}
}

// TestBadFaults: a script that cannot be read is refused, not ignored.
func TestBadFaults(t *testing.T) {
	for _, bad := range []string{"denoiser", "unet alloc 1", "denoiser alloc 0", "denoiser alloc 3-2", "denoiser every x"} {
		t.Setenv(faults, bad)
		if got := runCommand(t, "runtime", "denoiser"); got.code != 2 || !strings.Contains(got.stderr, "expected entries") {
			t.Errorf("%s: exit code %d, %s", bad, got.code, got.stderr)
		}
	}
}
