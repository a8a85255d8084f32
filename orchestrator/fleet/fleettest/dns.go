package fleettest

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"

	"github.com/triptych-serving/triptych/orchestrator/fleet"
	"github.com/triptych-serving/triptych/stage"
)

// Named is New of a fleet that is told one name for each kind, such as dns:///denoiser:7422, instead of the services' addresses.
func Named(t testing.TB, dns *DNS, services ...*Service) *Rig {
	t.Helper()
	addresses := map[stage.Kind][]string{}
	for i, kind := range stage.Kinds() {
		addresses[kind] = []string{fmt.Sprintf("dns:///%v:742%d", kind, i+1)}
	}
	return With(t, fleet.Options{Addresses: addresses, Resolver: dns}, services...)
}

// DNS is a resolver that answers what it was told last; of other hosts, that there is none. Safe for concurrent use.
type DNS struct {
	mu      sync.Mutex
	answers map[string][]netip.Addr
	fails   bool
}

// Set has a host stand for addresses, maybe none.
func (d *DNS) Set(host string, addresses ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.answers == nil {
		d.answers = map[string][]netip.Addr{}
	}
	d.answers[host] = []netip.Addr{}
	for _, a := range addresses {
		d.answers[host] = append(d.answers[host], netip.MustParseAddr(a))
	}
}

// Fail has every look-up fail, or no longer.
func (d *DNS) Fail(fails bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fails = fails
}

// LookupNetIP implements fleet.Resolver.
func (d *DNS) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fails {
		return nil, &net.DNSError{Err: "server misbehaving", Name: host, IsTemporary: true}
	}
	found, ok := d.answers[host]
	if !ok {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return found, nil
}
