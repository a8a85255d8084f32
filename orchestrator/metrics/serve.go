package metrics

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// The times of the server: a scrape is one small answer.
const (
	headerTimeout = 5 * time.Second
	stopTimeout   = time.Second
)

// Serve answers scrapes of /metrics on lis, in plaintext, until ctx ends, and closes lis. It returns nil
// after ctx has ended, else why it could not go on.
func (m *Metrics) Serve(ctx context.Context, lis net.Listener) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: headerTimeout}
	stopped := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		defer close(stopped)
		soon, done := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer done()
		if server.Shutdown(soon) != nil {
			_ = server.Close() // a scrape that nobody reads
		}
	})
	err := server.Serve(lis)
	if !cancel() {
		<-stopped
		return nil
	}
	return errors.Join(fmt.Errorf("serve metrics on %s: %w", lis.Addr(), err), server.Close())
}
