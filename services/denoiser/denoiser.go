// Package denoiser is the gRPC service of the denoiser stage: StageService and DenoiserService, health and
// reflection, in front of a runtime child that it supervises.
//
// It computes nothing and imports no other service.
package denoiser

import (
	"log/slog"

	"google.golang.org/grpc"

	"github.com/triptych-serving/triptych/services/internal/host"
	"github.com/triptych-serving/triptych/services/internal/service"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
)

// Options configure the service.
type Options = service.Options

// Service is the service; its Run serves.
type Service = service.Service

// New prepares the service of a denoiser.
func New(o Options) (*Service, error) {
	return service.New(stage.KindDenoiser, o, func(s grpc.ServiceRegistrar, h *host.Host, logger *slog.Logger) {
		stagerpc.RegisterDenoiser(s, host.Denoiser{Host: h}, logger)
	})
}
