package stageengine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/triptych-serving/triptych/engine/config"
	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/engine/nn"
	"github.com/triptych-serving/triptych/engine/tokenizer"
	"github.com/triptych-serving/triptych/engine/weights"
	"github.com/triptych-serving/triptych/stage"
)

// ModelError is what is wrong with the files of a model. Callers see names relative to the model's
// folder, and of what is beside it to the folder of both, not where they are on this machine; those of further files are without
// their folders.
func ModelError(err error, kind stage.Kind, model, path string, further ...string) *stage.Error {
	names := []string{path + "/", "", path, model, filepath.Dir(path) + "/", ""}
	for _, file := range further {
		if file != "" {
			names = append(names, filepath.Dir(file)+"/", "")
		}
	}
	inside := strings.NewReplacer(names...).Replace
	e := stage.Errorf(stage.ModelInvalid, "model %q cannot be loaded: %s", model, inside(err.Error())).With("model", model).With("stage", kind.String())
	e.Cause = err
	set := func(file, tensor, expected, got string) {
		for key, value := range map[string]string{"file": inside(file), "tensor": tensor, "expected": expected, "got": got} {
			if value != "" {
				e = e.With(key, value)
			}
		}
	}
	var (
		ofTensor    *nn.TensorError
		ofConfig    *config.Error
		ofDir       *modeldir.Error
		ofWeights   *weights.Error
		ofTokenizer *tokenizer.Error
	)
	switch {
	case errors.As(err, &ofTensor):
		set(ofTensor.File, ofTensor.Tensor, ofTensor.Expected, ofTensor.Got)
	case errors.As(err, &ofWeights):
		set(ofWeights.File, ofWeights.Tensor, ofWeights.Expected, ofWeights.Got)
	case errors.As(err, &ofConfig):
		set(ofConfig.File, "", ofConfig.Accepted, ofConfig.Value)
		if ofConfig.Key != "" {
			e = e.With("field", ofConfig.Key)
		}
	case errors.As(err, &ofTokenizer):
		set(ofTokenizer.File, "", ofTokenizer.Expected, ofTokenizer.Got)
	case errors.As(err, &ofDir):
		set(ofDir.Path, "", ofDir.Expected, ofDir.Got)
	}
	return e
}

// loadError sorts what can go wrong in a load: the caller gave up, memory, or the files.
func (s *Stage) loadError(err error, b *book) error {
	if errors.Is(err, device.ErrOutOfMemory) {
		return s.doesNotFit(stage.ModelDoesNotFit, b.component.Model, b.component.WeightsBytes, err)
	}
	if isContext(err) || stage.ReasonOf(err) == stage.ModelChanged {
		return err
	}
	return ModelError(err, s.kind, b.component.Model, b.of.path, b.of.vae)
}

// runError sorts what can go wrong in work that passed every check: the caller gave up, memory that
// was planned is not there, the disk does not take a temporary file, the files that weights are streamed from are
// not what they were, or a fault of ours.
func (s *Stage) runError(err error, b *book, scratch int64) error {
	if errors.Is(err, device.ErrOutOfMemory) {
		return s.doesNotFit(stage.EngineOOMUnplanned, b.component.Model, scratch, err)
	}
	if isContext(err) {
		return err
	}
	var spill *device.SpillError
	if errors.As(err, &spill) {
		reason := stage.EngineFault
		if spill.NoRoom() {
			reason = stage.DiskFull
		}
		e := stage.Errorf(reason, "the %v needs a temporary file of %s to keep to its memory, its disk has %s: %s", s.kind, stage.SizeUp(spill.Bytes), stage.Size(spill.AvailableBytes), withoutPath(spill.Err)).
			With("stage", s.kind.String()).With("needed_bytes", fmt.Sprint(spill.Bytes)).With("available_bytes", fmt.Sprint(spill.AvailableBytes))
		e.Cause, e.RetryAfter = err, diskPause
		return e
	}
	var stream *device.StreamError
	if errors.As(err, &stream) {
		e := ModelError(err, s.kind, b.component.Model, b.of.path, b.of.vae)
		if errors.Is(err, weights.ErrChanged) {
			e.Reason = stage.ModelChanged
		}
		b.distrust(e.Message) // a load opens the files that are there then
		return e
	}
	return s.fault(err)
}

// diskPause is when a disk that was full may be so no more: the files of others that it holds live as long as an image takes.
const diskPause = 10 * time.Second

// withoutPath is what the operating system said of a file, which stays on this machine.
func withoutPath(err error) string {
	var (
		p    *fs.PathError
		code syscall.Errno
	)
	switch {
	case errors.As(err, &p):
		return p.Err.Error()
	case errors.As(err, &code):
		return code.Error()
	}
	return "an error"
}

// doesNotFit is memory that could not be had, for weights or scratch of so many bytes, or more if the device says so.
func (s *Stage) doesNotFit(reason stage.Reason, model string, needed int64, cause error) error {
	var refused *device.MemoryError
	if errors.As(cause, &refused) {
		needed = max(needed, refused.NeededBytes)
	}
	memory := s.Device.Memory()
	e := stage.DoesNotFit(s.kind, model, needed, max(0, memory.CapBytes-s.Device.OverheadBytes()-memory.UsedBytes), memory.CapBytes)
	e.Reason, e.Cause = reason, cause
	var busy *device.BusyError
	if errors.As(cause, &busy) {
		e = stage.Busy(s.kind, model, busy.NeededBytes, busy.AvailableBytes, busy.BudgetBytes, busy.OthersBytes, busy.AwaitedBytes)
		e.Cause = cause
	}
	return e
}

func (s *Stage) fault(err error) error {
	e := stage.Errorf(stage.EngineFault, "the %v failed", s.kind).With("stage", s.kind.String())
	e.Cause = err
	return e
}

// changedError is files that are written while they are read.
func (s *Stage) changedError(b *book) *stage.Error {
	return stage.Errorf(stage.ModelChanged, "the files of model %q are being changed while the %v reads them", b.component.Model, s.kind).
		With("stage", s.kind.String()).With("model", b.component.Model)
}

func (s *Stage) drainingError() error {
	return stage.Errorf(stage.StageDraining, "the %v is draining and takes no new work", s.kind).With("stage", s.kind.String())
}

func isContext(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
