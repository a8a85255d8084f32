package fleet

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/triptych-serving/triptych/stage"
)

// Resolver looks up the addresses of a host, as *net.Resolver does.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// scheme begins a target that is a name, as gRPC writes it: dns:host:port, dns:///host:port or dns://server/host:port.
const scheme = "dns:"

// target is a name that stands for every address behind it.
type target struct {
	text   string // as it was given
	host   string
	port   uint16
	server string // that is asked, as host:port; empty asks as the system does
}

// parse reads a target that is a name; ok is false for an address.
func parse(text string) (t target, ok bool, err error) {
	rest, ok := strings.CutPrefix(text, scheme)
	if !ok {
		return t, false, nil
	}
	t.text = text
	if server, behind, asks := strings.Cut(strings.TrimPrefix(rest, "//"), "/"); asks && strings.HasPrefix(rest, "//") {
		t.server, rest = server, behind
	}
	if t.server != "" {
		if _, _, err := net.SplitHostPort(t.server); err != nil {
			t.server = net.JoinHostPort(strings.Trim(t.server, "[]"), "53")
		}
	}
	host, service, err := net.SplitHostPort(rest)
	port, badPort := net.LookupPort("tcp", service)
	if err != nil || host == "" || strings.ContainsRune(host, '/') || badPort != nil || port == 0 {
		return t, true, stage.Invalid(stage.InvalidField, "address", text, "a name such as dns:///triptych-denoiser:7422")
	}
	t.host, t.port = host, uint16(port)
	return t, true, nil
}

// String is how people are told of it.
func (t target) String() string {
	return net.JoinHostPort(strings.TrimSuffix(t.host, "."), strconv.Itoa(int(t.port)))
}

// certified is the host that certificates are for, empty if it is that of each address.
func (t target) certified() string {
	if _, err := netip.ParseAddr(t.host); err == nil {
		return ""
	}
	return strings.TrimSuffix(t.host, ".")
}

// resolver is the one that is asked, byDefault if the target names none.
func (t target) resolver(byDefault Resolver) Resolver {
	switch {
	case t.server != "":
		return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, t.server)
		}}
	case byDefault == nil:
		return net.DefaultResolver
	}
	return byDefault
}
