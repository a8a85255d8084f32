package residency

import (
	"context"

	"github.com/triptych-serving/triptych/stage"
)

// process is a stage's runtime process, as far as known: what is asked of one is not done by the next.
type process struct {
	stage      StageID
	generation uint64
}

// effect is something to do outside of the ledger.
type effect any

type (
	// startLoad: load, and answer with loadDone or loadFailed.
	startLoad struct {
		op       opID
		at       process
		name     string
		bytes    int64 // that the weights may take
		warm     bool  // just these are warm
		prefetch bool
	}
	// startEvict: evict, or drop what is warm, and answer with evictDone or evictFailed.
	startEvict struct {
		op   opID
		at   process
		name string
		warm bool // to the host's memory
		load opID // to be stopped first, which may leave something; 0 is none
	}
	// abandon: the stage was lost; whatever loads or is evicted there is to end.
	abandon struct{ stage StageID }
	// grant: the request has its stage, weights and scratch.
	grant struct {
		request RequestID
		lease   Lease
	}
	// refuse: the request is over without a grant.
	refuse struct {
		request RequestID
		err     error
	}
	// revoke: a granted request's stage was lost.
	revoke struct{ request RequestID }
	// moved: requests ahead of a waiting one, those at work included.
	moved struct {
		request RequestID
		ahead   int
	}
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
	name  string
}

// load loads, and tells the ledger how it went, unless it was cancelled.
func (k *Keeper) load(e startLoad) {
	resident := k.residents[e.at.stage]
	k.start(e.op, spot{e.at.stage, e.name}, func(ctx context.Context) input {
		var edition stage.Edition
		request := stage.LoadRequest{Component: e.name, LimitBytes: e.bytes, Generation: e.at.generation, Edition: func(e stage.Edition) { edition = e }}
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
	k.start(e.op, spot{e.at.stage, e.name}, func(ctx context.Context) input {
		evicted, err := resident.Evict(ctx, stage.EvictRequest{Component: e.name, Keep: e.warm, Generation: e.at.generation})
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
		k.callers[c.holder().request].outbox.put(p)
	}
}
