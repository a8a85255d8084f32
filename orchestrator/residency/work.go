package residency

import (
	"context"

	"github.com/triptych-serving/triptych/stage"
)

// work is a load or an eviction under way.
type work struct {
	stage  StageID
	cancel context.CancelFunc
	then   *startEvict // what follows a cancelled load
}

// spot is where works follow each other: one that was given up ends before the next begins.
type spot struct {
	stage StageID
	model string
}

// load loads, and tells the ledger how it went, unless it was cancelled.
func (k *Keeper) load(e startLoad) {
	resident := k.residents[e.at.stage]
	k.start(e.op, spot{e.at.stage, e.model}, func(ctx context.Context) input {
		var edition stage.Edition
		request := stage.LoadRequest{Model: e.model, LimitBytes: e.bytes, Generation: e.at.generation, Edition: func(e stage.Edition) { edition = e }}
		err := resident.Load(ctx, request, func(loaded, total int64) {
			k.do(func() { k.loading(e.op, progress{loaded, total}) })
		})
		if err != nil {
			return loadFailed{e.op, err}
		}
		return loadDone{e.op, edition}
	})
}

// evict evicts, and tells the ledger how it went.
func (k *Keeper) evict(e startEvict) {
	resident := k.residents[e.at.stage]
	k.start(e.op, spot{e.at.stage, e.model}, func(ctx context.Context) input {
		evicted, err := resident.Evict(ctx, stage.EvictRequest{Model: e.model, Keep: e.keep, Generation: e.at.generation})
		if err != nil {
			return evictFailed{e.op, err}
		}
		return evictDone{e.op, evicted.FreedBytes, evicted.WarmBytes}
	})
}

// start runs do in a goroutine, after what ran at the same spot before. The result of an abandoned
// work goes to the ledger like any other, which no longer knows the op.
func (k *Keeper) start(op opID, at spot, do func(context.Context) input) {
	ctx, cancel := context.WithCancel(k.ctx)
	w := &work{stage: at.stage, cancel: cancel}
	k.works[op] = w
	before, ended := k.last[at], make(chan struct{})
	k.last[at] = ended
	k.goroutines.Go(func() {
		defer cancel()
		if before != nil {
			<-before
		}
		result := do(ctx)
		close(ended)
		k.do(func() {
			delete(k.works, op)
			if w.then != nil {
				k.evict(*w.then)
				return
			}
			k.step(result)
		})
	})
}

// loading tells who waits for a load how far it is.
func (k *Keeper) loading(op opID, p progress) {
	if c := k.ledger.busy(op, Loading); c != nil && c.holder() != nil {
		k.claims[c.holder().request].outbox.put(p)
	}
}
