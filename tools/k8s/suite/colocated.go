//go:build linux

package suite

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// colocated is one pod whose three containers share a device and its budget.
func colocated() theme {
	return theme{name: "colocated", needs: realNode, checks: []check{
		{"three containers under one budget: the ledger is never above it, all bit-identical", oneBudget},
		{"kill -9 of a runtime: none fails, the budget holds", budgetAfterKill},
		{"uninstall leaves nothing, no container either", uninstallNode},
	}}
}

// budget is less than the three stages of the starter model take together.
const budget = "25MB"

// ledger notes what the orchestrator says of the device while callers work.
type ledger struct {
	budget, peak, evictions float64
	reads                   int
}

// watchLedger reads the metrics until the context ends.
func (t *T) watchLedger(ctx context.Context) (*ledger, error) {
	var l ledger
	for {
		samples, err := t.metrics(ctx, t.address(releaseName, 7440))
		if ctx.Err() != nil {
			return &l, nil
		}
		if err != nil {
			return &l, err
		}
		used, _ := sum(samples, "triptych_used_bytes", "", "")
		peak, _ := sum(samples, "triptych_peak_bytes", "", "")
		l.budget, _ = sum(samples, "triptych_budget_bytes", "", "")
		l.evictions, _ = sum(samples, "triptych_decisions_total", "action", "evict")
		l.peak = max(l.peak, used, peak)
		l.reads++
		if l.budget == 0 || l.peak > l.budget {
			return &l, fmt.Errorf("the ledger has %.0f bytes of a budget of %.0f", l.peak, l.budget)
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return &l, nil
		}
	}
}

// underBudget watches the ledger while callers work and something is done.
func (t *T) underBudget(ctx context.Context, what string, do func(*load) error) error {
	watching, stop := context.WithCancel(ctx)
	defer stop()
	var l *ledger
	var over error
	var done sync.WaitGroup
	done.Go(func() { l, over = t.watchLedger(watching) })
	work, err := t.startLoad(ctx)
	if err != nil {
		return err
	}
	failed := do(work)
	line, err := work.end()
	stop()
	done.Wait()
	t.Measure("%s: ledger at most %.1f of %.1f MB in %d readings, %.0f evictions; %s", what, l.peak/1e6, l.budget/1e6, l.reads, l.evictions, line)
	if l.evictions == 0 {
		over = errors.Join(over, errors.New("nothing was evicted: the budget was never short"))
	}
	return errors.Join(failed, err, over)
}

func oneBudget(ctx context.Context, t *T) error {
	v := with(with(t.small(), "topology", "colocated"), "colocated.memoryBudget", budget)
	if err := t.Install(ctx, v); err != nil {
		return err
	}
	return t.underBudget(ctx, "colocated pod", func(l *load) error {
		return errors.Join(l.next(ctx, 4*callers), t.anonymous(ctx))
	})
}

// anonymous notes what the processes of the pod take in all: the kernel counts heaps, stacks and all
// that a ledger of weights and scratch does not.
func (t *T) anonymous(ctx context.Context) error {
	p, err := t.onePod(ctx, "colocated")
	if err != nil {
		return err
	}
	var total int64
	for _, stage := range stages {
		container, err := t.cluster.Container(p.Metadata.UID, p.container(stage))
		if err != nil {
			return err
		}
		used, err := container.MemoryUsed()
		if err != nil {
			return err
		}
		total += used
	}
	t.Measure("colocated pod: anonymous memory of its three containers, by control groups: %.1f MB", float64(total)/1e6)
	return nil
}

func budgetAfterKill(ctx context.Context, t *T) error {
	return t.underBudget(ctx, "colocated pod whose denoiser's runtime is killed", func(l *load) error {
		if err := l.next(ctx, callers); err != nil {
			return err
		}
		p, err := t.onePod(ctx, "colocated")
		if err != nil {
			return err
		}
		container, pid, err := t.process(p, 1)
		if err != nil {
			return err
		}
		if err := container.Kill(pid); err != nil {
			return err
		}
		return l.next(ctx, 2*callers)
	})
}
