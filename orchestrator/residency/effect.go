package residency

import (
	"time"

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
		model    string
		bytes    int64 // that the weights may take
		stowed   bool  // the host kept just these
		prefetch bool
	}
	// startEvict: evict, or drop what is warm, and answer with evictDone or evictFailed.
	startEvict struct {
		op    opID
		at    process
		model string
		keep  bool // in the host's memory
	}
	// cancelLoad: stop a load, then evict what it may have left, and answer as for startEvict.
	cancelLoad struct {
		op    opID
		load  opID // the one to stop
		at    process
		model string
	}
	// abandon: the stage was lost; whatever loads or is evicted there is to end.
	abandon struct{ stage StageID }
	// grant: the request has its stage, weights and scratch.
	grant struct {
		request RequestID
		stage   StageID
		queued  time.Duration // until its bytes were reserved, evictions included
		loading time.Duration // from then on
		edition stage.Edition // of the weights
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
