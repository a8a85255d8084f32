package residency

import (
	"fmt"

	"github.com/triptych-serving/triptych/stage"
)

// Weights that are not to be used again are stale: what they gave is not finite, or their files have changed. They are evicted
// before anybody else is let in, whatever the policy, and kept by no host.

// distrusted: the work of a granted request found out that its weights are stale.
type distrusted struct {
	request RequestID
	why     string
}

func (in distrusted) apply(l *ledger) {
	if r := l.request(in.request); r != nil && r.phase == granted {
		r.component().stale, r.component().staleFor = in.why, r.cause
	}
}

// Distrust tells that the weights under the lease are not to be used again, and why: behind the lease they are evicted.
func (l *Lease) Distrust(why string) { l.keeper.tell(distrusted{l.claim.id, why}) }

// changes says in words how the edition of a component that was loaded differs from the last one, empty if it does not.
func (c *component) changes(now stage.Edition) string {
	switch last := c.edition; {
	case !last.Differs(now):
		return ""
	case last.Identity != "" && now.Identity != "":
		return fmt.Sprintf("; it is another than before, %s and not %s", now.Short(), last.Short())
	}
	return "; its files are others than before"
}

// renew evicts or drops what is stale and at no work.
func (l *ledger) renew() {
	for _, s := range l.services {
		for _, c := range s.components {
			r := c.holder()
			switch {
			case c.stale == "" || s.silent || c.doubtful && !l.retry:
			case c.state == Resident && (r == nil || r.phase == placed):
				l.evict(c, c.staleFor, Stale, "%v is not used again: %s", c, c.stale)
			case l.droppable(c):
				l.discard(c, Stale, "%v is not used again: %s", c, c.stale)
			}
		}
	}
}
