package residency

// unfinished: the work of a granted request failed or was cut off, so that its job's turn is still to be taken.
type unfinished struct{ request RequestID }

func (in unfinished) apply(l *ledger) {
	if r := l.request(in.request); r != nil && r.phase == granted {
		r.unfinished = true
	}
}

// Unfinished tells that the work under the lease failed or was cut off. The turn stays among those that the job has
// announced, and the record says that it was not taken. Release follows.
func (l *Lease) Unfinished() { l.keeper.tell(unfinished{l.claim.id}) }

// turns is how many turns the job of a request has announced and not taken, 0 if the request is none of them.
func (l *ledger) turns(r *request) int {
	if j := l.job(r.job); j != nil && !r.try {
		return len(j.needs)
	}
	return 0
}
