// Package encoder is the gRPC service of the encoder stage: StageService and WorkService, health and
// reflection, in front of a runtime child that it supervises.
//
// It computes nothing and imports no other service.
package encoder

import (
	"github.com/triptych-serving/triptych/services/internal/service"
	"github.com/triptych-serving/triptych/stage"
)

// Options configure the service.
type Options = service.Options

// Service is the service; its Run serves.
type Service = service.Service

// New prepares the service of an encoder.
func New(o Options) (*Service, error) { return service.New(stage.KindEncoder, o) }
