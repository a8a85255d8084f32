//go:build linux

package suite

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// examples are shown to the API server as they stand: it checks fields and admission, which helm's own
// dry run does not.
func examples() theme {
	return theme{name: "examples", checks: []check{
		{"every example passes the server's dry run, and restricted pods but for nodes' folders", dryRuns},
		{"the defaults pass, in a release of any name", oddNames},
		{"a wrong value is refused with its name, before the server sees it", wrongValue},
	}}
}

// dryRun renders the chart, without the pod of helm test, which takes the release's service account to be
// there, and has the server check it. It returns the server's warnings.
func (t *T) dryRun(ctx context.Context, release string, args ...string) (string, error) {
	text, err := t.Helm(ctx, append([]string{"template", release, t.Chart, "--skip-tests"}, args...)...)
	if err != nil {
		return "", err
	}
	file, err := t.file("rendered.yaml", []byte(text))
	if err != nil {
		return "", err
	}
	return t.cluster.Warnings(ctx, "kubectl", "-n", t.Namespace, "apply", "--server-side", "--dry-run=server", "--force-conflicts", "--filename="+file)
}

func dryRuns(ctx context.Context, t *T) error {
	files, err := filepath.Glob(filepath.Join(t.Chart, "examples", "*.yaml"))
	if err != nil || len(files) < 6 {
		return fmt.Errorf("%d examples, expected at least 6: %w", len(files), err)
	}
	var failed error
	for _, file := range files {
		said, err := t.dryRun(ctx, releaseName, "--values="+file)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", filepath.Base(file), err))
			continue
		}
		for line := range strings.Lines(said) {
			// Folders of the node, for caches and for pods that share a card, are what the restricted profile forbids.
			if strings.Contains(line, "would violate PodSecurity") && !strings.Contains(line, "hostPath") {
				failed = errors.Join(failed, fmt.Errorf("%s: %s", filepath.Base(file), line))
			}
		}
	}
	if failed == nil {
		t.Measure("examples checked by the API server: %d", len(files))
	}
	return failed
}

// oddNames are names that YAML takes for something else where a template forgets the quotes.
func oddNames(ctx context.Context, t *T) error {
	var failed error
	for _, release := range []string{"n", "y", "on", "123", "1e3", strings.Repeat("long-", 10) + "est"} {
		if _, err := t.dryRun(ctx, release); err != nil {
			failed = errors.Join(failed, fmt.Errorf("release %s: %w", release, err))
		}
	}
	return failed
}

func wrongValue(ctx context.Context, t *T) error {
	out, err := t.Helm(ctx, "install", releaseName, t.Chart, "--set=stages.denoiser.replica=2")
	if err := refused(out, err, "replica"); err != nil {
		return err
	}
	out, err = t.Helm(ctx, "install", releaseName, t.Chart, "--set=stages.denoiser.gpu.mode=magic")
	if err := refused(out, err, "mode", "exclusive"); err != nil {
		return err
	}
	out, err = t.Helm(ctx, "install", releaseName, t.Chart, "--set=stages.denoiser.autoscaling.kind=hpa,stages.denoiser.autoscaling.minReplicas=0")
	return refused(out, err, "minReplicas")
}
