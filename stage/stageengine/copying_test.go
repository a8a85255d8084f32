package stageengine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/device/devicetest"
	"github.com/triptych-serving/triptych/stage"
)

// stack is the three stages on one device, with two models.
type stack struct {
	device    device.Device
	encoder   *Stage
	denoiser  *Stage
	decoder   *Stage
	warmBytes int64 // that each may keep
}

// stackModels differ in the size of their parts.
var stackModels = []string{"tiny-sd15", "tiny-v"}

func newCopyingStack(t *testing.T, o devicetest.CopyingOptions, warmBytes int64) *stack {
	t.Helper()
	computes, err := cpu.New(cpu.Options{Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	d, err := devicetest.NewCopying(computes, o)
	if err != nil {
		t.Fatal(err)
	}
	return newStack(t, d, warmBytes)
}

func newStack(t *testing.T, d device.Device, warmBytes int64) *stack {
	t.Helper()
	var dirs []string
	for _, m := range stackModels {
		dirs = append(dirs, filepath.Join(repo, "testdata/golden", m))
	}
	library, err := OpenLibrary(dirs...)
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Library: library, Device: d, Host: "test", WarmBytes: warmBytes}
	s := &stack{d, newStage(stage.KindEncoder, o), newStage(stage.KindDenoiser, o), newStage(stage.KindDecoder, o), warmBytes}
	t.Cleanup(func() {
		for _, r := range s.stages() {
			if err := r.Drain(context.Background()); err != nil { // which ends what goes on beside
				t.Error(err)
			}
		}
		s.evictAll(t)
		if m := d.Memory(); m.UsedBytes != 0 || m.OffloadedBytes != 0 {
			t.Errorf("memory in the end: %+v", m)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *stack) stages() []*Stage { return []*Stage{s.encoder, s.denoiser, s.decoder} }

func (s *stack) loadAll(t *testing.T, model string) {
	t.Helper()
	for _, r := range s.stages() {
		s.load(t, r, model, 0)
	}
}

func (*stack) load(t *testing.T, r *Stage, model string, limit int64) {
	t.Helper()
	if err := r.Load(t.Context(), stage.LoadRequest{Component: partOf(r, model), LimitBytes: limit}, nil); err != nil {
		t.Fatal(err)
	}
}

func (s *stack) evictAll(t *testing.T) {
	t.Helper()
	for _, r := range s.stages() {
		for _, b := range r.all() {
			if _, err := r.Evict(context.Background(), stage.EvictRequest{Component: b.component.Name}); err != nil {
				t.Error(err)
			}
		}
	}
}

// image makes the same small image each time.
func (s *stack) image(t *testing.T, model string) []byte {
	t.Helper()
	_, img := generate(t, s.encoder, s.denoiser, s.decoder, model, goldenRun{Sampler: "euler", Prompt: "a fox", NegativePrompt: "fog", Steps: 2, GuidanceScale: 3, Width: 64, Height: 32, Seed: 7})
	return img.Data
}

// holds sums up what the stages say they hold.
func (s *stack) holds(t *testing.T) (resident, warm int64) {
	t.Helper()
	for _, r := range s.stages() {
		info, err := r.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		own := int64(0)
		for _, m := range info.Resident {
			resident += m.WeightsBytes
		}
		for _, m := range info.Warm {
			own += m.WeightsBytes
		}
		if own > s.warmBytes {
			t.Errorf("the %v keeps %d bytes warm, %d are allowed", info.Kind, own, s.warmBytes)
		}
		warm += own
	}
	return resident, warm
}

// check compares what the stages say with what the device has, to the byte.
func (s *stack) check(t *testing.T, what string) {
	t.Helper()
	resident, warm := s.holds(t)
	m, overhead := s.device.Memory(), s.device.OverheadBytes()
	if m.UsedBytes != resident || m.OffloadedBytes != warm || m.CapBytes > 0 && m.PeakBytes+overhead > m.CapBytes {
		t.Fatalf("%s: memory %+v beside %d of overhead, the stages hold %d bytes and keep %d warm", what, m, overhead, resident, warm)
	}
}

// taped notes the tapes of runs.
type taped struct {
	device.Device
	mu    sync.Mutex
	tapes map[*device.Tape]int
}

func (d *taped) NewRun(t *device.Tape, w device.Weights, o device.RunOptions, further ...device.Weights) (device.Run, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tapes[t]++
	return d.Device.NewRun(t, w, o, further...)
}

// The second request of a shape runs the tapes of the first: nothing is recorded for it.
func TestSecondRequestRecordsNothing(t *testing.T) {
	computes, err := cpu.New(cpu.Options{Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	d := &taped{Device: computes, tapes: map[*device.Tape]int{}}
	s := newStack(t, d, 0)
	model := stackModels[0]
	s.loadAll(t, model)
	clear(d.tapes) // of what is remembered of prompts
	run := goldenRun{Sampler: "euler", Steps: 1, GuidanceScale: 1, Width: 64, Height: 32}
	for _, prompt := range []string{"a fox", "a boat", "a house"} {
		run.Prompt = prompt
		generate(t, s.encoder, s.denoiser, s.decoder, model, run)
	}
	if len(d.tapes) != 3 {
		t.Errorf("%d tapes for three networks", len(d.tapes))
	}
	for _, runs := range d.tapes {
		if runs != 3 {
			t.Errorf("a tape has %d runs of three requests", runs)
		}
	}
}

// A device with its own memory makes the same images to the byte: resident, brought back, streamed, and brought back streamed.
func TestCopyingMakesTheSameImage(t *testing.T) {
	computes, err := cpu.New(cpu.Options{Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	plain := newStack(t, computes, 0)
	s := newCopyingStack(t, devicetest.CopyingOptions{OverheadBytes: 1 << 20}, 1<<30)
	for _, model := range stackModels {
		plain.loadAll(t, model)
		want := plain.image(t, model)
		for _, streamed := range []bool{false, true} {
			for _, r := range s.stages() {
				limit := int64(0)
				if streamed {
					f, err := footprint(t.Context(), r, model, 4, 8, 1, 1)
					if err != nil {
						t.Fatal(err)
					}
					if limit = f.WeightsBytes(); limit >= f.WholeBytes() {
						t.Errorf("at least %d of %d bytes", limit, f.WholeBytes())
					}
				}
				s.load(t, r, model, limit)
			}
			for _, when := range []string{"loaded", "brought back"} {
				s.check(t, when)
				if !bytes.Equal(s.image(t, model), want) {
					t.Errorf("%s, %s, streamed %v: another image", model, when, streamed)
				}
				resident, _ := s.holds(t)
				for _, r := range s.stages() {
					if e, err := r.Evict(t.Context(), stage.EvictRequest{Component: partOf(r, model), Keep: true}); err != nil || e.WarmBytes == 0 || e.WarmBytes != e.FreedBytes {
						t.Errorf("evicted %+v, %v", e, err)
					}
				}
				if m := s.device.Memory(); m.UsedBytes != 0 || m.OffloadedBytes != resident {
					t.Errorf("memory %+v, want %d bytes offloaded", m, resident)
				}
				for _, r := range s.stages() {
					s.load(t, r, model, warmBytes(t, r, model))
				}
			}
			s.evictAll(t)
		}
	}
}

// warmBytes is what a stage keeps warm of a model; a load within as much brings it back.
func warmBytes(t *testing.T, r *Stage, model string) int64 {
	t.Helper()
	info, err := r.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range info.Warm {
		if m.Name == partOf(r, model) {
			return m.WeightsBytes
		}
	}
	return 0
}

// Weights that the device fails to offload are dropped, be it they or what goes with them, and so are warm ones that cannot come
// back whole: the stage says what there is, and loads them anew.
func TestOffloadFails(t *testing.T) {
	var refuse, fail atomic.Int64 // at which call from now on
	at := func(n *atomic.Int64) func(int64) error {
		return func(int64) error {
			if n.Add(-1) == 0 {
				return errors.New("injected")
			}
			return nil
		}
	}
	s := newCopyingStack(t, devicetest.CopyingOptions{CapBytes: 1 << 30, OverheadBytes: 1 << 20, Refuse: at(&refuse), Fail: at(&fail)}, 1<<20) // for one model
	model := stackModels[0]
	part := partOf(s.encoder, model)
	s.loadAll(t, model)
	want := s.image(t, model)
	evict := func() stage.Evicted {
		t.Helper()
		e, err := s.encoder.Evict(t.Context(), stage.EvictRequest{Component: part, Keep: true})
		if err != nil {
			t.Error(err)
		}
		return e
	}
	weights := s.encoder.book(part).component.WeightsBytes
	for i, what := range []string{"the weights", "the remembered prompts"} {
		fail.Store(int64(i + 1))
		if e := evict(); e != (stage.Evicted{FreedBytes: weights}) {
			t.Errorf("%s cannot be offloaded: evicted %+v, want %d bytes freed", what, e, weights)
		}
		s.check(t, what)
		if warm := warmBytes(t, s.encoder, model); warm != 0 {
			t.Errorf("%s cannot be offloaded: %d bytes are warm", what, warm)
		}
		s.load(t, s.encoder, model, 0)
		if !bytes.Equal(s.image(t, model), want) {
			t.Errorf("%s could not be offloaded: another image", what)
		}
	}
	for _, stuck := range []bool{false, true} {
		if e := evict(); e.WarmBytes != weights {
			t.Errorf("evicted %+v, want all of %d bytes warm", e, weights)
		}
		refuse.Store(2) // what is remembered of prompts
		if stuck {
			fail.Store(1)
		}
		if err := s.encoder.Load(t.Context(), stage.LoadRequest{Component: part}, nil); stage.ReasonOf(err) != stage.ModelDoesNotFit {
			t.Errorf("stuck %v: %v, want %s", stuck, err, stage.ModelDoesNotFit)
		}
		s.check(t, fmt.Sprintf("stuck %v", stuck))
		if warm := warmBytes(t, s.encoder, model); (warm != 0) == stuck {
			t.Errorf("stuck %v: %d bytes are warm", stuck, warm)
		}
		s.load(t, s.encoder, model, 0)
		if !bytes.Equal(s.image(t, model), want) {
			t.Errorf("stuck %v: another image", stuck)
		}
	}
}

// A device that streams nothing holds weights whole: a limit below that is refused with the bytes, an order to stream by the load.
func TestUnstreamed(t *testing.T) {
	s := newCopyingStack(t, devicetest.CopyingOptions{Unstreamed: true}, 0)
	model := stackModels[0]
	part := partOf(s.denoiser, model)
	f, err := footprint(t.Context(), s.denoiser, model, 8, 8, 1, 1)
	if err != nil || f.WeightsBytes() != f.WholeBytes() {
		t.Errorf("footprint %+v, %v", f, err)
	}
	if err := s.denoiser.Load(t.Context(), stage.LoadRequest{Component: part, LimitBytes: f.WholeBytes() - 1}, nil); stage.ReasonOf(err) != stage.ModelDoesNotFit {
		t.Errorf("%v, want %s", err, stage.ModelDoesNotFit)
	}
	s.load(t, s.denoiser, model, f.WholeBytes())
	s.check(t, "whole")
	o := s.denoiser.Options
	o.ResidentBytes = map[stage.Kind]int64{stage.KindDenoiser: 0}
	if err := newStage(stage.KindDenoiser, o).Load(t.Context(), stage.LoadRequest{Component: part}, nil); !errors.Is(err, device.ErrUnsupported) {
		t.Errorf("told to stream: %v, want %v", err, device.ErrUnsupported)
	}
	s.check(t, "told to stream")
}

// What a device takes for itself is not there for weights, nor for the scratch of an image, and not told as available.
func TestOverheadIsNotAvailable(t *testing.T) {
	const overhead, room = 1 << 20, 3 << 20
	model := stackModels[0]
	var planned []stage.Footprint
	for _, o := range []devicetest.CopyingOptions{{CapBytes: room}, {CapBytes: overhead + room, OverheadBytes: overhead}} {
		s := newCopyingStack(t, o, 0)
		f, err := footprint(t.Context(), s.decoder, model, 64, 64, 1, 0)
		if err != nil || f.SpillBytes == 0 || f.WeightsBytes()+f.ScratchBytes > room {
			t.Errorf("with %+v: footprint %+v, %v; want bands within %d bytes", o, f, err, room)
		}
		planned = append(planned, f)
		err = s.denoiser.Load(t.Context(), stage.LoadRequest{Component: partOf(s.denoiser, model)}, nil)
		var told *stage.Error
		if !errors.As(err, &told) || told.Reason != stage.ModelDoesNotFit || told.Metadata["available_bytes"] != fmt.Sprint(room) {
			t.Errorf("with %+v: %v (%+v), want %s with %d bytes available", o, err, told, stage.ModelDoesNotFit, room)
		}
	}
	if !cmp.Equal(planned[0], planned[1]) {
		t.Errorf("planned %+v without an overhead, %+v with one", planned[0], planned[1])
	}
}
