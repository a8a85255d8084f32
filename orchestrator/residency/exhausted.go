package residency

// What happens when the device has less than the ledger believes, which the work of a granted request finds
// out. Loads that find it out are retried by the ledger itself, see loadFailed.

type (
	// exhausted: the device ran out of memory under the work of a granted request.
	exhausted struct{ request RequestID }
	// askedAgain: the work that ran out of memory is to be tried once more, when all evictions on its device
	// are done.
	askedAgain struct{ asked }
)

func (in exhausted) apply(l *ledger) {
	if r := l.request(in.request); r != nil && r.phase == granted {
		l.evictIdle(r)
	}
}

func (in askedAgain) apply(l *ledger) {
	in.asked.apply(l)
	l.requests[len(l.requests)-1].retried = true
}

// Exhausted tells that the device ran out of memory under the lease: all that is idle there is evicted. Work
// that is to be tried once more releases the lease and acquires with Again.
func (l *Lease) Exhausted() { l.keeper.tell(exhausted{l.claim.id}) }
