//go:build linux

package suite

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/triptych-serving/triptych/tools/k8s/cluster"
)

// adapted is the API that a HorizontalPodAutoscaler asks for external metrics.
var adapted = cluster.APIService{Group: "external.metrics.k8s.io", Version: "v1beta1", Namespace: "default", Name: "external-metrics", Port: 6445}

// serveExternalMetrics stands in for Prometheus and its adapter, neither of which runs here: it answers
// an autoscaler with what the orchestrator's own /metrics says at that moment.
func (t *T) serveExternalMetrics(ctx context.Context) error {
	pair, err := t.cluster.CA.Issue(cluster.Subject{Name: "external-metrics", Names: []string{cluster.NodeIP}})
	if err != nil {
		return err
	}
	certificate, err := tls.X509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", fmt.Sprintf("%s:%d", cluster.NodeIP, adapted.Port))
	if err != nil {
		return err
	}
	const root = "/apis/external.metrics.k8s.io/v1beta1"
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+root, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, values{
			"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "external.metrics.k8s.io/v1beta1",
			"resources": []values{{"name": "triptych_backlog_seconds", "namespaced": true, "kind": "ExternalMetricValueList", "verbs": []string{"get"}}},
		})
	})
	mux.HandleFunc("GET "+root+"/namespaces/{namespace}/{metric}", func(w http.ResponseWriter, r *http.Request) {
		items, err := t.externalMetric(r.Context(), r.PathValue("metric"), r.URL.Query().Get("labelSelector"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		answer(w, values{"kind": "ExternalMetricValueList", "apiVersion": "external.metrics.k8s.io/v1beta1", "metadata": values{}, "items": items})
	})
	server := &http.Server{Handler: mux, TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.ServeTLS(listener, "", "") }()
	t.Cleanup(func(ctx context.Context) error {
		return errors.Join(t.cluster.Unregister(ctx, adapted), server.Close())
	})
	return t.cluster.Register(ctx, adapted)
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// externalMetric is the samples of a metric whose labels a selector of the form NAME=VALUE,… takes.
func (t *T) externalMetric(ctx context.Context, metric, selector string) ([]values, error) {
	samples, err := t.metrics(ctx, t.address(releaseName, 7440))
	if err != nil {
		return nil, err
	}
	var items []values
	for _, s := range samples {
		if s.name == metric && s.selected(selector) {
			items = append(items, values{
				"metricName": metric, "metricLabels": s.labels, "timestamp": time.Now().UTC().Format(time.RFC3339),
				"value": fmt.Sprintf("%dm", int64(s.value*1000)),
			})
		}
	}
	return items, nil
}

func (s sample) selected(selector string) bool {
	for term := range strings.SplitSeq(selector, ",") {
		if name, value, ok := strings.Cut(term, "="); ok && s.labels[name] != value {
			return false
		}
	}
	return true
}
