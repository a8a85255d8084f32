//go:build linux

package suite

import (
	"context"
	"errors"
	"time"
)

// stages are the parts that pictures go through.
var stages = []string{"encoder", "denoiser", "decoder"}

// roll is an upgrade of a release that works.
func roll() theme {
	return theme{name: "rolling upgrade", needs: realNode, setup: installSmall, checks: []check{
		{"every stage is rolled while 8 callers work for 3 minutes: none fails, all bit-identical", rollUnderLoad},
	}}
}

func installSmall(ctx context.Context, t *T) error { return t.Install(ctx, t.small()) }

func rollUnderLoad(ctx context.Context, t *T) error {
	whole := 3 * time.Minute
	if t.Quick {
		whole = 20 * time.Second
	}
	until := time.Now().Add(whole)
	l, err := t.startLoad(ctx)
	if err != nil {
		return err
	}
	failed := l.next(ctx, callers)
	v := t.small()
	for _, stage := range stages {
		if failed != nil {
			break
		}
		begun := time.Now()
		v = with(v, "stages."+stage+".podAnnotations", values{"example.com/rolled": "1"})
		if failed = t.Install(ctx, v); failed != nil {
			break
		}
		t.Measure("rolling upgrade of the %s under load: %.1f s", stage, time.Since(begun).Seconds())
		failed = l.next(ctx, 2*callers)
	}
	if failed == nil {
		failed = l.until(ctx, until)
	}
	line, err := l.end()
	t.Measure("rolling upgrade of every stage, %d callers: %s", callers, line)
	return errors.Join(failed, err)
}
