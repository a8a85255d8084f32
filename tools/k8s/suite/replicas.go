//go:build linux

package suite

import (
	"context"
	"fmt"
	"time"
)

// replicas is about who owns their number.
func replicas() theme {
	return theme{name: "replicas", checks: []check{
		{"helm upgrade after kubectl scale says who owns the field", scaleConflict},
		{"the runbook: --force-conflicts takes it back", scaleRunbook},
		{"uninstall leaves nothing", uninstall},
	}}
}

func scaleConflict(ctx context.Context, t *T) error {
	if err := t.Install(ctx, t.small()); err != nil {
		return err
	}
	if err := t.scale(ctx, "encoder", 3); err != nil {
		return err
	}
	if err := t.replicas(ctx, "encoder", 3, true, 30*time.Second); err != nil {
		return err
	}
	out, err := t.install(ctx, with(t.small(), "stages.decoder.replicas", 2), "--wait", "--timeout=60s")
	return refused(out, err, "conflict", `"kubectl"`, ".spec.replicas")
}

func scaleRunbook(ctx context.Context, t *T) error {
	if err := t.Install(ctx, with(t.small(), "stages.decoder.replicas", 2), "--force-conflicts"); err != nil {
		return err
	}
	for part, want := range map[string]int{"encoder": 1, "decoder": 2} {
		if err := t.replicas(ctx, part, want, true, 30*time.Second); err != nil {
			return fmt.Errorf("after --force-conflicts: %w", err)
		}
	}
	return nil
}
