// Package decoder is the gRPC service of the decoder stage: StageService and WorkService, health and
// reflection, in front of a runtime child that it supervises.
//
// It computes nothing and imports no other service.
package decoder

import (
	"github.com/triptych-serving/triptych/services/internal/service"
	"github.com/triptych-serving/triptych/stage"
)

// Options configure the service.
type Options = service.Options

// Service is the service; its Run serves.
type Service = service.Service

// New prepares the service of a decoder.
func New(o Options) (*Service, error) { return service.New(stage.KindDecoder, o) }
