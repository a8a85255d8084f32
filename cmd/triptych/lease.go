package main

import (
	"log/slog"
	"time"

	"github.com/triptych-serving/triptych/internal/modelfolder"
	"github.com/triptych-serving/triptych/stage/stageengine"
)

// leasePause is how long a model may be there before a service that finds it has a lease on it.
const leasePause = 5 * time.Second

// holdLeases keeps the models of some folders from being removed by `triptych cache` until release: those that are there, and
// those that come.
func holdLeases(dirs []string, log *slog.Logger) (release func()) {
	leases := &modelfolder.Leases{}
	last := ""
	hold := func() {
		problem := ""
		if err := leases.Hold(modelPaths(dirs)); err != nil {
			problem = err.Error()
		}
		if problem != "" && problem != last {
			log.Warn("models may be removed while they are served", "err", problem)
		}
		last = problem
	}
	hold()
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(leasePause)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				hold()
			case <-end:
				_ = leases.Hold(nil) // takes none, and so cannot fail
				return
			}
		}
	}()
	return func() { close(end); <-ended }
}

// modelPaths are the models of some folders. A folder that cannot be read has none.
func modelPaths(dirs []string) (paths []string) {
	for _, dir := range dirs {
		library, err := stageengine.OpenLibrary(dir)
		if err != nil {
			continue
		}
		for _, name := range library.Names() {
			if path, err := library.Path(name); err == nil {
				paths = append(paths, path)
			}
		}
	}
	return paths
}
