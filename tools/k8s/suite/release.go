//go:build linux

package suite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"
)

// values are those of the chart, as in a values file.
type values = map[string]any

// releaseName is that of every installation, one in each namespace.
const releaseName = "triptych"

// small are values for a machine of two processors, and our image.
func (t *T) small() values {
	return values{
		"image": values{"tag": t.Version, "pullPolicy": "Never"},
		"stageDefaults": values{
			"resources":      values{"requests": values{"cpu": "20m", "memory": "64Mi"}, "limits": values{"memory": "1Gi"}},
			"preStopSeconds": 2,
		},
		"orchestrator": values{
			"resources":      values{"requests": values{"cpu": "20m", "memory": "64Mi"}},
			"preStopSeconds": 2,
		},
	}
}

// Install installs the chart or changes the installation to these values, and waits until all is
// ready.
func (t *T) Install(ctx context.Context, v values, args ...string) error {
	_, err := t.install(ctx, v, append([]string{"--wait", "--timeout=120s"}, args...)...)
	return err
}

// install is helm upgrade --install with these values alone.
func (t *T) install(ctx context.Context, v values, args ...string) (string, error) {
	text, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return "", err
	}
	file, err := t.file("values.json", text)
	if err != nil {
		return "", err
	}
	return t.Helm(ctx, append([]string{"upgrade", "--install", releaseName, t.Chart, "--reset-values", "--values=" + file}, args...)...)
}

// Uninstall removes the installation and checks that nothing is left of it, anywhere.
func (t *T) Uninstall(ctx context.Context) error {
	if _, err := t.Helm(ctx, "uninstall", releaseName, "--wait", "--timeout=120s"); err != nil {
		return err
	}
	return eventually(ctx, time.Minute, func(ctx context.Context) error { return t.nothingLeft(ctx) })
}

// nothingLeft looks at every kind of object that the API server has.
func (t *T) nothingLeft(ctx context.Context) error {
	everywhere, err := t.kinds(ctx)
	if err != nil {
		return err
	}
	left, err := t.cluster.Kubectl(ctx, "get", everywhere, "-A", "--ignore-not-found", "-o", "name", "-l", "app.kubernetes.io/instance="+releaseName)
	if err != nil {
		return err
	}
	namespaced, err := t.kinds(ctx, "--namespaced")
	if err != nil {
		return err
	}
	own, err := t.Kubectl(ctx, "get", namespaced, "--ignore-not-found", "-o", "name")
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(own) {
		if name != "configmap/kube-root-ca.crt" && name != "serviceaccount/default" {
			left += name + "\n"
		}
	}
	if strings.TrimSpace(left) != "" {
		return fmt.Errorf("left after helm uninstall: %s", strings.Join(strings.Fields(left), " "))
	}
	return nil
}

// kinds are those of which objects can be listed and deleted, but for events and figures, as kubectl
// takes them.
func (t *T) kinds(ctx context.Context, args ...string) (string, error) {
	out, err := t.cluster.Kubectl(ctx, append([]string{"api-resources", "--verbs=list,delete", "-o", "name"}, args...)...)
	var kinds []string
	for kind := range strings.FieldsSeq(out) {
		if !strings.HasPrefix(kind, "events") && !strings.Contains(kind, "metrics.k8s.io") {
			kinds = append(kinds, kind)
		}
	}
	return strings.Join(kinds, ","), err
}

// name is that of an object of the release: of a pool's Deployment and Service, or the orchestrator's
// Deployment.
func name(part string) string { return releaseName + "-" + part }

// A pod, as far as checks look at it.
type pod struct {
	Metadata struct {
		Name, UID         string
		Labels            map[string]string
		DeletionTimestamp string
	}
	Spec   struct{ NodeName string }
	Status struct {
		Phase      string
		PodIP      string
		Conditions []struct {
			Type, Status, Reason, Message string
			LastTransitionTime            time.Time
		}
		ContainerStatuses []struct {
			Name         string
			ContainerID  string
			Ready        bool
			RestartCount int
		}
	}
}

// readySince is when the pod became ready; zero if it is not.
func (p pod) readySince() time.Time {
	for _, c := range p.Status.Conditions {
		if c.Type == "Ready" && c.Status == "True" {
			return c.LastTransitionTime
		}
	}
	return time.Time{}
}

// container is the id of one of the pod's containers.
func (p pod) container(name string) string {
	for _, c := range p.Status.ContainerStatuses {
		if c.Name == name {
			return c.ContainerID
		}
	}
	return ""
}

// pods are those of a part of the release that are not on their way out; of all parts if it is empty.
func (t *T) pods(ctx context.Context, part string) ([]pod, error) {
	selector := "app.kubernetes.io/instance%3D" + releaseName
	if part != "" {
		selector += ",app.kubernetes.io/component%3D" + part
	}
	var list struct{ Items []pod }
	if err := t.cluster.API.Get(ctx, "/api/v1/namespaces/"+t.Namespace+"/pods?labelSelector="+selector, &list); err != nil {
		return nil, err
	}
	var there []pod
	for _, p := range list.Items {
		if p.Metadata.DeletionTimestamp == "" {
			there = append(there, p)
		}
	}
	return there, nil
}

// onePod is the only pod of a part.
func (t *T) onePod(ctx context.Context, part string) (pod, error) {
	pods, err := t.pods(ctx, part)
	if err == nil && len(pods) != 1 {
		err = fmt.Errorf("%d pods of %s, expected one", len(pods), part)
	}
	if err != nil {
		return pod{}, err
	}
	return pods[0], nil
}

// nodes counts the pods of a part by node.
func (t *T) nodes(ctx context.Context, part string) (map[string]int, error) {
	pods, err := t.pods(ctx, part)
	count := map[string]int{}
	for _, p := range pods {
		count[p.Spec.NodeName]++
	}
	return count, err
}

// deployment is what checks look at of one.
type deployment struct {
	Spec   struct{ Replicas int }
	Status struct{ Replicas, ReadyReplicas, UpdatedReplicas int }
}

func (t *T) deployment(ctx context.Context, part string) (deployment, error) {
	var d deployment
	err := t.cluster.API.Get(ctx, "/apis/apps/v1/namespaces/"+t.Namespace+"/deployments/"+name(part), &d)
	return d, err
}

// replicas waits until a deployment is to have a number of replicas and, if ready, has them.
func (t *T) replicas(ctx context.Context, part string, want int, ready bool, within time.Duration) error {
	return eventually(ctx, within, func(ctx context.Context) error {
		d, err := t.deployment(ctx, part)
		if err != nil {
			return err
		}
		if d.Spec.Replicas != want || ready && (d.Status.ReadyReplicas != want || d.Status.Replicas != want) {
			return fmt.Errorf("%s: expected %d replicas, it has %d, of which %d are ready", part, want, d.Spec.Replicas, d.Status.ReadyReplicas)
		}
		return nil
	})
}

// scale sets the replicas of a deployment as kubectl scale does.
func (t *T) scale(ctx context.Context, part string, replicas int) error {
	_, err := t.Kubectl(ctx, "scale", "deployment/"+name(part), fmt.Sprintf("--replicas=%d", replicas))
	return err
}

// event waits for an event of an object with the texts in its message.
func (t *T) event(ctx context.Context, reason string, within time.Duration, texts ...string) error {
	return eventually(ctx, within, func(ctx context.Context) error {
		var list struct {
			Items []struct{ Reason, Message string }
		}
		if err := t.cluster.API.Get(ctx, "/api/v1/namespaces/"+t.Namespace+"/events", &list); err != nil {
			return err
		}
		var seen []error
		for _, e := range list.Items {
			if e.Reason != reason {
				continue
			}
			err := says(e.Message, texts...)
			if err == nil {
				return nil
			}
			seen = append(seen, err)
		}
		return errors.Join(fmt.Errorf("no such event %s", reason), errors.Join(seen...))
	})
}

// with is v with a value at a path of keys, for instance stages.denoiser.replicas.
func with(v values, path string, value any) values {
	first, rest, deeper := strings.Cut(path, ".")
	out := maps.Clone(v)
	if !deeper {
		out[first] = value
		return out
	}
	below, _ := out[first].(values)
	if below == nil {
		below = values{}
	}
	out[first] = with(below, rest, value)
	return out
}
