//go:build linux

package suite

import (
	"context"
	"fmt"
	"time"
)

// first is what somebody sees who installs the chart for the first time.
func first() theme {
	return theme{name: "first picture", needs: realNode, checks: []check{
		{"from helm install to a picture through the Service", installToPicture},
		{"the pictures are those of triptych generate", samePictures},
		{"helm test makes a picture and looks at it", helmTest},
		{"containers are restricted: no token, read-only files, the limit is the control group's", restrictedContainers},
		{"kubectl exec and logs reach the containers", execAndLogs},
		{"uninstall leaves nothing, no container either", uninstallNode},
	}}
}

func installToPicture(ctx context.Context, t *T) error {
	if _, err := t.reference(ctx, picture{}); err != nil {
		return err
	}
	begun := time.Now()
	if _, err := t.install(ctx, t.small()); err != nil {
		return err
	}
	installed := time.Since(begun)
	// A caller who is there before the Service tries again.
	if err := eventually(ctx, patience, func(ctx context.Context) error { return t.one(ctx, picture{}) }); err != nil {
		return err
	}
	t.Measure("helm install %.1f s; to the first picture through the Service %.1f s", installed.Seconds(), time.Since(begun).Seconds())
	return nil
}

func samePictures(ctx context.Context, t *T) error {
	for seed := range uint64(seeds) {
		if err := t.one(ctx, picture{seed: seed}); err != nil {
			return err
		}
	}
	t.Measure("pictures bit-identical with triptych generate: %d", seeds)
	return nil
}

// helmTest looks at what helm says, since helm test succeeds as well where there is no test.
func helmTest(ctx context.Context, t *T) error {
	begun := time.Now()
	out, err := t.Helm(ctx, "test", releaseName, "--timeout=120s")
	if err != nil {
		logs, _ := t.Kubectl(ctx, "logs", name("test"))
		return fmt.Errorf("%w: %s", err, logs)
	}
	if err := says(out, "Phase:", "Succeeded"); err != nil {
		return err
	}
	t.Measure("helm test %.1f s", time.Since(begun).Seconds())
	return nil
}

func restrictedContainers(ctx context.Context, t *T) error {
	pods, err := t.pods(ctx, "")
	if err != nil {
		return err
	}
	for _, p := range pods {
		out, err := t.Kubectl(ctx, "get", "pod", p.Metadata.Name, "-o", `jsonpath={.spec.automountServiceAccountToken} {.spec.volumes[*].projected} {.spec.containers[0].securityContext.readOnlyRootFilesystem} {.spec.securityContext.runAsNonRoot}`)
		if err != nil {
			return err
		}
		if out != "false  true true" && out != "false true true" {
			return fmt.Errorf("%s: token, projected volumes, read-only, non-root: %q, expected \"false  true true\"", p.Metadata.Name, out)
		}
	}
	denoiser, err := t.onePod(ctx, "denoiser")
	if err != nil {
		return err
	}
	group, err := t.cluster.Container(denoiser.Metadata.UID, denoiser.container("denoiser"))
	if err != nil {
		return err
	}
	limit, err := group.MemoryLimit()
	if err == nil && limit != 1<<30 {
		err = fmt.Errorf("the control group of the denoiser is limited to %d bytes, expected 1 GiB", limit)
	}
	return err
}

// execAndLogs runs the program in a pod, as NOTES.txt of the chart says.
func execAndLogs(ctx context.Context, t *T) error {
	out, err := t.Kubectl(ctx, "exec", "deploy/"+name("orchestrator"), "--", "/usr/local/bin/triptych", "version")
	if err == nil {
		err = says(out, "triptych")
	}
	if err != nil {
		return err
	}
	out, err = t.Kubectl(ctx, "logs", "deploy/"+name("denoiser"))
	if err != nil {
		return err
	}
	return says(out, `"level"`)
}

// uninstallBut is uninstallNode in a namespace that has objects of the check's own.
func uninstallBut(own ...string) func(context.Context, *T) error {
	return func(ctx context.Context, t *T) error {
		if _, err := t.Kubectl(ctx, append([]string{"delete", "--wait=false"}, own...)...); err != nil {
			return err
		}
		return uninstallNode(ctx, t)
	}
}

func uninstallNode(ctx context.Context, t *T) error {
	if err := t.Uninstall(ctx); err != nil {
		return err
	}
	return eventually(ctx, time.Minute, func(ctx context.Context) error {
		left, err := t.cluster.Containers(ctx)
		if err == nil && left > 0 {
			err = fmt.Errorf("%d containers are left on the node", left)
		}
		return err
	})
}
