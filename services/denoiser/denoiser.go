// Package denoiser is the gRPC service of the denoiser stage: StageService and WorkService, health and
// reflection, in front of a runtime child that it supervises.
//
// It computes nothing and imports no other service.
package denoiser

import (
	"github.com/triptych-serving/triptych/services/internal/service"
	"github.com/triptych-serving/triptych/stage"
)

// Options configure the service.
type Options = service.Options

// Service is the service; its Run serves.
type Service = service.Service

// New prepares the service of a denoiser.
func New(o Options) (*Service, error) { return service.New(stage.KindDenoiser, o) }
