//go:build linux

package suite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/triptych-serving/triptych/tools/k8s/cluster"
)

// trouble is what is wrong in an installation, and what an operator sees who looks where he looks
// first.
func trouble() theme {
	return theme{name: "trouble", needs: realNode, setup: unreadableVolume, checks: []check{
		{"an unreadable model volume: kubectl describe pod says so", unreadableModels},
		{"no node has a GPU: kubectl describe pod says which resource is missing", missingGPU},
		{"a node promises a GPU and has none: kubectl describe pod has the program's own words", promisedGPU},
		{"a wrong value: helm upgrade says which, and the release goes on as it was", wrongUpgrade},
		{"an expired certificate: the logs of both sides say so", expiredCertificate},
		{"uninstall leaves nothing, no container either", uninstallBut("pvc/models", "secret/stages", "secret/orchestrator")},
	}}
}

// unreadableVolume makes a volume of a folder that belongs to root alone.
func unreadableVolume(ctx context.Context, t *T) error {
	folder := filepath.Join(t.Dir, "unreadable")
	if err := os.MkdirAll(filepath.Join(folder, "sd15"), 0o700); err != nil {
		return err
	}
	volume := "/api/v1/persistentvolumes/unreadable"
	t.Cleanup(func(ctx context.Context) error { return t.cluster.API.Delete(ctx, volume) })
	return errors.Join(
		t.cluster.API.Apply(ctx, volume, values{
			"apiVersion": "v1", "kind": "PersistentVolume", "metadata": values{"name": "unreadable"},
			"spec": values{
				"capacity": values{"storage": "1Gi"}, "accessModes": []string{"ReadOnlyMany"}, "storageClassName": "",
				"claimRef": values{"namespace": t.Namespace, "name": "models"}, "hostPath": values{"path": folder},
			},
		}),
		t.cluster.API.Apply(ctx, "/api/v1/namespaces/"+t.Namespace+"/persistentvolumeclaims/models", values{
			"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": values{"name": "models"},
			"spec": values{
				"accessModes": []string{"ReadOnlyMany"}, "storageClassName": "", "volumeName": "unreadable",
				"resources": values{"requests": values{"storage": "1Gi"}},
			},
		}))
}

// described waits until kubectl describe of a part's pods says all the texts.
func (t *T) described(ctx context.Context, part string, texts ...string) error {
	return eventually(ctx, time.Minute, func(ctx context.Context) error {
		out, err := t.Kubectl(ctx, "describe", "pods", "-l", "app.kubernetes.io/component="+part)
		if err != nil {
			return err
		}
		return says(out, texts...)
	})
}

// lastWords waits until a container of a part has ended with a message that says all the texts, which
// kubectl describe shows as Message.
func (t *T) lastWords(ctx context.Context, part string, texts ...string) error {
	const path = `jsonpath={range .items[*].status.containerStatuses[*]}{.state.terminated.message}{.lastState.terminated.message}{end}`
	return eventually(ctx, time.Minute, func(ctx context.Context) error {
		out, err := t.Kubectl(ctx, "get", "pods", "-l", "app.kubernetes.io/component="+part, "-o", path)
		if err != nil {
			return err
		}
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if err := says(lines[len(lines)-1], texts...); err != nil {
			return err
		}
		t.Measure("kubectl describe pod: Message: %s", lines[len(lines)-1])
		return nil
	})
}

func unreadableModels(ctx context.Context, t *T) error {
	v := with(t.small(), "model", values{"source": "pvc", "pvc": values{"existingClaim": "models"}})
	if _, err := t.install(ctx, v); err != nil {
		return err
	}
	return t.lastWords(ctx, "denoiser", "models", "permission denied")
}

func missingGPU(ctx context.Context, t *T) error {
	if _, err := t.install(ctx, with(t.small(), "stages.denoiser", gpu("exclusive", 1)), "--force-conflicts"); err != nil {
		return err
	}
	return t.described(ctx, "denoiser", "FailedScheduling", "Insufficient nvidia.com/gpu")
}

// promisedGPU is a card that the node's plugin counts and the container does not get.
func promisedGPU(ctx context.Context, t *T) error {
	if err := t.cluster.SetCapacity(ctx, "nvidia.com/gpu", "1"); err != nil {
		return err
	}
	return t.lastWords(ctx, "denoiser", "cuda")
}

func wrongUpgrade(ctx context.Context, t *T) error {
	if err := t.Install(ctx, t.small(), "--force-conflicts"); err != nil {
		return err
	}
	out, err := t.install(ctx, with(t.small(), "stages.denoiser.memoryBudget", "25 apples"))
	if err := refused(out, err, "memoryBudget"); err != nil {
		return err
	}
	return t.one(ctx, picture{})
}

// certificates are of the stages and of the orchestrator, for as long as the stages' are to hold.
func (t *T) certificates(ctx context.Context, authority *cluster.Authority, stagesUntil time.Time) error {
	names := func(service string) (all []string) {
		for _, host := range []string{service, "*." + service} {
			all = append(all, host, host+"."+t.Namespace, host+"."+t.Namespace+".svc", host+"."+t.Namespace+".svc."+cluster.Domain)
		}
		return all
	}
	var stageNames []string
	for _, stage := range stages {
		stageNames = append(stageNames, names(name(stage))...)
	}
	return errors.Join(
		t.secret(ctx, authority, "stages", cluster.Subject{Name: "stages", Names: stageNames, Until: stagesUntil}),
		t.secret(ctx, authority, "orchestrator", cluster.Subject{Name: "orchestrator", Names: append(names(releaseName), "localhost")}))
}

// secret is a certificate with its authority, as the chart wants it.
func (t *T) secret(ctx context.Context, authority *cluster.Authority, secret string, s cluster.Subject) error {
	pair, err := authority.Issue(s)
	if err != nil {
		return err
	}
	return t.cluster.API.Apply(ctx, "/api/v1/namespaces/"+t.Namespace+"/secrets/"+secret, values{
		"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": values{"name": secret},
		"data": values{"tls.crt": pair.Cert, "tls.key": pair.Key, "ca.crt": authority.PEM},
	})
}

// secured are values with certificates from secrets.
func (t *T) secured() values {
	return with(t.small(), "tls", values{"mode": "secret", "requireClientCertificate": true, "secret": values{"orchestrator": "orchestrator", "stages": "stages"}})
}

func expiredCertificate(ctx context.Context, t *T) error {
	authority, err := cluster.NewAuthority("test")
	if err != nil {
		return err
	}
	if err := t.certificates(ctx, authority, time.Now().Add(-time.Hour)); err != nil {
		return err
	}
	if _, err := t.install(ctx, t.secured(), "--force-conflicts"); err != nil {
		return err
	}
	for _, part := range []string{"denoiser", "orchestrator"} {
		err := eventually(ctx, time.Minute, func(ctx context.Context) error {
			logs, err := t.Kubectl(ctx, "logs", "deploy/"+name(part))
			if err != nil {
				return err
			}
			return says(logs, "expired")
		})
		if err != nil {
			return fmt.Errorf("kubectl logs of the %s: %w", part, err)
		}
	}
	return nil
}
