package residency

import "github.com/triptych-serving/triptych/stage"

// input is something that happened. The ledger takes it up with apply and then decides.
type input interface{ apply(*ledger) }

// news are inputs that come at once: nothing is decided in between.
type news []input

func (in news) apply(l *ledger) {
	for _, one := range in {
		one.apply(l)
	}
}

type (
	// joined: a stage is there, with what it holds, or may be another than it was. Of one that is the same all stays that it
	// does not deny.
	joined struct {
		holds
		kind       stage.Kind
		device     Device
		models     []string // that it can load
		keeps      int64    // bytes of evicted weights that the host may keep
		generation uint64   // of the stage's runtime processes
		draining   bool     // holds bytes but takes no requests
		share      stage.DeviceShare
	}
	// left: a service is gone.
	left struct{ stage StageID }
	// seen: the service is there, with a runtime process of that generation. A later one than was known
	// means that the last one ended, and its bytes with it.
	seen struct {
		stage      StageID
		generation uint64
	}
	// failed: the runtime process of a granted request ended under it.
	failed struct{ request RequestID }
	// measured: what a service says of its device's budget and of other processes there.
	measured struct {
		stage StageID
		share stage.DeviceShare
	}
	// crowded: other processes had bytes that a granted request was to have.
	crowded struct{ request RequestID }
	// announced: the turns a job has yet to finish, in order. It replaces what the job said before.
	announced struct {
		job   JobID
		needs []Need
	}
	// forgotten: a job asks for nothing more.
	forgotten struct{ job JobID }
	// asked: a request for a stage. One that tries is refused rather than made to wait or evict.
	asked struct {
		request RequestID
		job     JobID
		need    Need
		try     bool
	}
	// cancelled: a request's caller gave up, whatever became of it. err tells why.
	cancelled struct {
		request RequestID
		err     error
	}
	// released: a granted request is done.
	released struct{ request RequestID }
	loadDone struct {
		op      opID
		edition stage.Edition // of what was loaded, empty if the stage does not tell
	}
	evictDone struct {
		op    opID
		freed int64 // bytes, as the stage says
		kept  int64 // bytes of them in the host's memory
	}
	loadFailed struct {
		op  opID
		err error
	}
	evictFailed struct {
		op  opID
		err error
	}
	// ticked: time has passed.
	ticked struct{}
)

// opID tells loads and evictions apart, so that the results of given-up ones are recognised.
type opID uint64
