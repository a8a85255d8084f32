package service

import (
	"context"
	"slices"
	"time"

	"github.com/triptych-serving/triptych/internal/rpcserver"
	"github.com/triptych-serving/triptych/services/internal/host"
	"github.com/triptych-serving/triptych/stage"
)

// A service asks its runtime how it is: often until it is ready, and then so often that a runtime which is gone for good shows.
// Info waits for a runtime that is being started again, for some seconds, as all calls do; so a runtime that comes back at
// once leaves the service ready, and callers need not go elsewhere.
const (
	unreadyInterval = time.Second
	readyInterval   = 5 * time.Second
)

// watchBound is how long one look may take before the service is taken for hung: Info gives up after a tenth of it.
const watchBound = time.Minute

// watch keeps the health up to date until ctx ends. The service has started when its runtime has found models, is ready while
// one of them can be used, and lives while the runtime is there or being started again.
func (s *Service) watch(ctx context.Context, h *host.Host) {
	health, told := s.options.Health, ""
	hung := time.AfterFunc(watchBound, func() { health.Set(false, rpcserver.Liveness) })
	defer hung.Stop()
	for {
		info, err := h.Info(ctx)
		if ctx.Err() != nil {
			return
		}
		ready := slices.ContainsFunc(info.Models, func(m stage.Model) bool { return unusable(info, m) == "" })
		if len(info.Models) > 0 {
			health.Set(true, rpcserver.Startup)
		}
		health.SetReady(ready)
		hung.Reset(watchBound)
		health.Set(h.Supervised(), rpcserver.Liveness)
		if why := unready(info, err); why != told {
			if told = why; ready {
				s.options.Logger.Info("ready")
			} else if why != "" {
				s.options.Logger.Warn("not ready", "reason", why)
			}
		}
		pause := unreadyInterval
		if ready {
			pause = readyInterval
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// unready is why a service whose runtime answered so is not ready, in words; empty if it is, or shuts down.
func unready(info stage.Info, err error) string {
	if stage.ReasonOf(err) == stage.StageDraining {
		return "" // which is told otherwise
	}
	if err != nil {
		return err.Error()
	}
	why := "the runtime has found no model"
	for _, m := range info.Models {
		problem := unusable(info, m)
		if problem == "" {
			return ""
		}
		why = "no model can be used: " + m.Name + ": " + problem
	}
	return why
}

// unusable is why a service can do nothing for a model, empty if it can: one sound component is enough, since not all tasks need all.
func unusable(info stage.Info, m stage.Model) string {
	why := m.Problem
	if why != "" {
		return why
	}
	for _, c := range info.Components {
		switch {
		case c.Model != m.Name:
		case c.Problem == "":
			return ""
		default:
			why = c.Problem
		}
	}
	return why
}
