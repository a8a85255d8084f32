package fleettest

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

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

// Serve answers by DNS over UDP until the test ends, and gives the address.
func (d *DNS) Serve(t testing.TB) string {
	t.Helper()
	conn, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		query := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(query)
			if err != nil { // it is closed
				return
			}
			var m dnsmessage.Message
			if m.Unpack(query[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			if answer, err := d.answer(m).Pack(); err == nil {
				_, _ = conn.WriteTo(answer, from) // who is gone asks no more
			}
		}
	}()
	t.Cleanup(func() {
		_ = conn.Close()
		<-ended
	})
	return conn.LocalAddr().String()
}

// answer answers a question of addresses; an answer is good for no time.
func (d *DNS) answer(m dnsmessage.Message) *dnsmessage.Message {
	q := m.Questions[0]
	m.Header = dnsmessage.Header{ID: m.ID, Response: true, RecursionDesired: true, RecursionAvailable: true}
	m.Answers, m.Authorities, m.Additionals = nil, nil, nil
	found, err := d.LookupNetIP(context.Background(), "ip", strings.TrimSuffix(q.Name.String(), "."))
	if err != nil {
		m.RCode = dnsmessage.RCodeServerFailure
		if err.(*net.DNSError).IsNotFound { //nolint:errorlint // it has just been made
			m.RCode = dnsmessage.RCodeNameError
		}
	}
	for _, ip := range found {
		header := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class}
		switch {
		case q.Type == dnsmessage.TypeA && ip.Is4():
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AResource{A: ip.As4()}})
		case q.Type == dnsmessage.TypeAAAA && !ip.Is4():
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AAAAResource{AAAA: ip.As16()}})
		}
	}
	return &m
}
