package fleet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
)

// How often a name is looked up, and how long that may take.
const (
	lookupInterval = time.Second
	lookupTimeout  = 5 * time.Second
)

// name is a name and what is found behind it. Fleet.mu guards all but the first three.
type name struct {
	target
	kind     stage.Kind
	resolver Resolver

	listed  map[residency.StageID]bool // by the last answer
	problem string                     // why that may not be all, empty if it is
	past    *stage.Info                // of the service that was forgotten last
}

// lookUp looks a name up, again and again, until ctx ends.
func (f *Fleet) lookUp(ctx context.Context, n *name) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		asked, cancel := context.WithTimeout(ctx, lookupTimeout)
		found, err := n.resolver.LookupNetIP(asked, "ip", n.host)
		cancel()
		if ctx.Err() == nil {
			f.found(ctx, n, found, err)
		}
		timer.Reset(lookupInterval)
	}
}

// found notes what is behind a name. A look-up that fails changes nothing but what is told of it; no such host is an answer.
func (f *Fleet) found(ctx context.Context, n *name, found []netip.Addr, err error) {
	var dns *net.DNSError
	if errors.As(err, &dns) && dns.IsNotFound {
		found, err = nil, nil
	}
	f.mu.Lock()
	problem := ""
	switch {
	case err != nil:
		problem = fmt.Sprintf("the addresses behind %v cannot be looked up: %s", n, wordsOfLookup(err))
	case len(found) == 0:
		problem = fmt.Sprintf("no address behind %v", n)
	}
	if err == nil {
		n.listed = map[residency.StageID]bool{}
		for _, ip := range found {
			if why := f.list(ctx, n, residency.StageID(netip.AddrPortFrom(ip.Unmap(), n.port).String())); why != "" {
				problem = why
			}
		}
	}
	news := n.problem != problem
	n.problem = problem
	f.mu.Unlock()
	if news && problem != "" {
		f.log.Warn("name of a stage", "stage", n.kind.String(), "cause", problem)
	}
	if news {
		f.notify()
	}
}

// list adds an address that is behind a name, and tells in words why not if it cannot. f.mu is held.
func (f *Fleet) list(ctx context.Context, n *name, id residency.StageID) string {
	m := f.members[id]
	switch {
	case m == nil:
		var err error
		if m, err = f.dial(id, n.kind, n.certified()); err != nil {
			return fmt.Sprintf("%s, which is behind %v, cannot be dialled: %v", id, n, err)
		}
		f.members[id], f.ordered = m, nil
		f.logOf(m).Info("stage is listed", "name", n.String())
		f.watching.Go(func() { f.watch(ctx, m) })
	case m.kind != n.kind:
		return fmt.Sprintf("%s, which is behind %v, is an address of the %v too", id, n, m.kind)
	}
	if n.listed[id] = true; !slices.Contains(m.names, n) {
		m.names = append(m.names, n)
	}
	return ""
}

// forget takes out a member that no name lists any more, and that is not there, and reports whether it has.
func (f *Fleet) forget(m *member) bool {
	info, _ := m.last()
	if m.known() {
		return false
	}
	f.mu.Lock()
	listed := m.given || slices.ContainsFunc(m.names, func(n *name) bool { return n.listed[m.id] })
	if !listed {
		delete(f.members, m.id)
		f.ordered = nil
		for _, n := range m.names {
			if info != nil {
				n.past = info
			}
		}
	}
	f.mu.Unlock()
	if !listed {
		f.logOf(m).Info("stage is no longer listed")
		f.notify()
	}
	return !listed
}

// wordsOfLookup is why a name could not be looked up.
func wordsOfLookup(err error) string {
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return strings.TrimSpace(dns.Err)
	}
	return err.Error()
}
