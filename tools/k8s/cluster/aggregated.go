//go:build linux

package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// An APIService is an API that a program at the node's address serves behind the API server.
type APIService struct {
	Group, Version  string
	Namespace, Name string // of its Service
	Port            int
}

// Register makes the API server pass calls on to an API service and waits until it is reached.
func (c *Cluster) Register(ctx context.Context, s APIService) error {
	service := fmt.Sprintf("/api/v1/namespaces/%s/services/%s", s.Namespace, s.Name)
	slice := fmt.Sprintf("/apis/discovery.k8s.io/v1/namespaces/%s/endpointslices/%s", s.Namespace, s.Name)
	err := errors.Join(
		c.API.Apply(ctx, service, object{
			"apiVersion": "v1", "kind": "Service", "metadata": object{"name": s.Name},
			"spec": object{"ports": []object{{"port": 443, "targetPort": s.Port}}},
		}),
		c.API.Apply(ctx, slice, object{
			"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
			"metadata":    object{"name": s.Name, "labels": object{"kubernetes.io/service-name": s.Name}},
			"addressType": "IPv4",
			"ports":       []object{{"port": s.Port, "name": ""}},
			"endpoints":   []object{{"addresses": []string{NodeIP}, "conditions": object{"ready": true}}},
		}),
		c.API.Apply(ctx, s.path(), object{
			"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": object{"name": s.Version + "." + s.Group},
			"spec": object{
				"group": s.Group, "version": s.Version, "groupPriorityMinimum": 100, "versionPriority": 100,
				"insecureSkipTLSVerify": true, // of a program on this node
				"service":               object{"name": s.Name, "namespace": s.Namespace, "port": 443},
			},
		}))
	if err != nil {
		return err
	}
	return Wait(ctx, time.Minute, func(ctx context.Context) error {
		var have struct {
			Status struct {
				Conditions []struct{ Type, Status, Message string }
			}
		}
		if err := c.API.Get(ctx, s.path(), &have); err != nil {
			return err
		}
		for _, condition := range have.Status.Conditions {
			if condition.Type == "Available" && condition.Status == "True" {
				return nil
			}
		}
		return fmt.Errorf("%s is not available: %v", s.Group, have.Status.Conditions)
	})
}

// Unregister undoes Register.
func (c *Cluster) Unregister(ctx context.Context, s APIService) error {
	return errors.Join(
		c.API.Delete(ctx, s.path()),
		c.API.Delete(ctx, fmt.Sprintf("/apis/discovery.k8s.io/v1/namespaces/%s/endpointslices/%s", s.Namespace, s.Name)),
		c.API.Delete(ctx, fmt.Sprintf("/api/v1/namespaces/%s/services/%s", s.Namespace, s.Name)))
}

func (s APIService) path() string {
	return fmt.Sprintf("/apis/apiregistration.k8s.io/v1/apiservices/%s.%s", s.Version, s.Group)
}

// CreateNamespace makes a namespace with labels, unless it is there.
func (c *Cluster) CreateNamespace(ctx context.Context, name string, labels map[string]string) error {
	err := c.API.Apply(ctx, "/api/v1/namespaces/"+name, object{
		"apiVersion": "v1", "kind": "Namespace", "metadata": object{"name": name, "labels": labels},
	})
	if err != nil {
		return err
	}
	return Wait(ctx, 30*time.Second, func(ctx context.Context) error {
		_, err := c.API.Do(ctx, "GET", "/api/v1/namespaces/"+name+"/serviceaccounts/default", "", nil)
		return err
	})
}

var metricsServer = APIService{Group: "metrics.k8s.io", Version: "v1beta1", Namespace: "kube-system", Name: "metrics-server", Port: 4443}

// AddMetricsServer starts metrics-server, which tells what pods use.
func (c *Cluster) AddMetricsServer(ctx context.Context) error {
	_, err := c.run("metrics-server", "metrics-server", nil, "--kubeconfig="+c.Kubeconfig(),
		"--authentication-kubeconfig="+c.Kubeconfig(), "--authorization-kubeconfig="+c.Kubeconfig(),
		"--bind-address="+NodeIP, fmt.Sprintf("--secure-port=%d", metricsServer.Port),
		"--tls-cert-file="+c.pki("aggregated.crt"), "--tls-private-key-file="+c.pki("aggregated.key"),
		"--kubelet-insecure-tls", "--kubelet-preferred-address-types=InternalIP", "--metric-resolution=10s", "--kubelet-request-timeout=5s")
	if err != nil {
		return err
	}
	return c.Register(ctx, metricsServer)
}

var kedaMetrics = APIService{Group: "external.metrics.k8s.io", Version: "v1beta1", Namespace: "keda", Name: "keda-metrics", Port: 6447}

// AddKEDA starts KEDA's operator and metrics adapter, whose resources AddDefinitions made known.
func (c *Cluster) AddKEDA(ctx context.Context) error {
	if err := c.CreateNamespace(ctx, "keda", nil); err != nil {
		return err
	}
	certs := filepath.Join(c.Dir, "keda-certs")
	pair := c.pairs["aggregated"]
	if err := errors.Join(os.MkdirAll(certs, 0o750),
		os.WriteFile(filepath.Join(certs, "ca.crt"), c.CA.PEM, 0o600),
		os.WriteFile(filepath.Join(certs, "tls.crt"), pair.Cert, 0o600),
		os.WriteFile(filepath.Join(certs, "tls.key"), pair.Key, 0o600)); err != nil {
		return err
	}
	env := []string{"POD_NAMESPACE=keda", "KEDA_CLUSTER_OBJECT_NAMESPACE=keda", "WATCH_NAMESPACE=", "POD_NAME=keda-0"}
	operator, err := c.run("keda-operator", "keda-operator", env, "--kubeconfig="+c.Kubeconfig(), "--cert-dir="+certs,
		"--metrics-bind-address=127.0.0.1:8080", "--health-probe-bind-address=127.0.0.1:8081", "--metrics-service-bind-address=127.0.0.1:9666")
	if err != nil {
		return err
	}
	adapter, err := c.run("keda-adapter", "keda-adapter", env, "--lister-kubeconfig="+c.Kubeconfig(),
		"--authentication-kubeconfig="+c.Kubeconfig(), "--authorization-kubeconfig="+c.Kubeconfig(), "--kubeconfig="+c.Kubeconfig(),
		"--bind-address="+NodeIP, fmt.Sprintf("--secure-port=%d", kedaMetrics.Port), "--port=8082", "--cert-dir="+certs,
		"--tls-cert-file="+c.pki("aggregated.crt"), "--tls-private-key-file="+c.pki("aggregated.key"),
		"--metrics-service-address=127.0.0.1:9666", "--metrics-service-grpc-authority=localhost")
	if err != nil {
		return err
	}
	if err := c.ready(ctx, operator, time.Minute, func(ctx context.Context) error { return answers(ctx, "http://127.0.0.1:8081/readyz") }); err != nil {
		return err
	}
	return c.ready(ctx, adapter, time.Minute, func(ctx context.Context) error { return c.Register(ctx, kedaMetrics) })
}

// DeleteNamespace removes a namespace and waits until all in it is gone.
func (c *Cluster) DeleteNamespace(ctx context.Context, name string) error {
	path := "/api/v1/namespaces/" + name
	if err := c.API.Delete(ctx, path); err != nil {
		return err
	}
	return Wait(ctx, 90*time.Second, func(ctx context.Context) error {
		text, err := c.API.Do(ctx, "GET", path, "", nil)
		if err == nil {
			return fmt.Errorf("namespace %s is still there: %s", name, text)
		}
		var status *StatusError
		if errors.As(err, &status) && status.Code == http.StatusNotFound {
			return nil
		}
		return err
	})
}

// definitions are the custom resources that charts make objects of, by module.
var definitions = map[string]string{
	"github.com/kedacore/keda/v2":                        "config/crd/bases/*.yaml",
	"github.com/cert-manager/cert-manager":               "deploy/crds/*.yaml",
	"github.com/prometheus-operator/prometheus-operator": "example/prometheus-operator-crd/*.yaml",
}

// AddDefinitions makes the custom resources of KEDA, cert-manager and the Prometheus operator known, so
// that the API server checks objects of theirs. Nothing acts on them.
func (c *Cluster) AddDefinitions(ctx context.Context) error {
	args := []string{"apply", "--server-side", "--force-conflicts"}
	for module, pattern := range definitions {
		folder, err := c.tools.Module(module)
		if err != nil {
			return err
		}
		files, err := filepath.Glob(filepath.Join(folder, pattern))
		if err != nil || len(files) == 0 {
			return fmt.Errorf("no resource definitions in %s: %w", folder, err)
		}
		for _, file := range files {
			args = append(args, "--filename="+file)
		}
	}
	_, err := c.Kubectl(ctx, args...)
	return err
}
