package main

import (
	"fmt"
	"net"
	"strings"

	"google.golang.org/grpc/resolver"
)

// checkTarget refuses as bad usage what names no server: expected is host:port, or one of gRPC's own names, such as
// dns:///host:port or unix:/path. tls is the prefix of the flags that ask for TLS.
func checkTarget(flag, tls, target string) error {
	if rest, ok := strings.CutPrefix(strings.ToLower(target), "dns:"); ok && target[:4] != "dns:" {
		return usageError{fmt.Errorf("--%s %q: expected dns: in lower case, such as dns:%s", flag, target, rest)}
	}
	if scheme, host, web := strings.Cut(target, "://"); web && resolver.Get(scheme) == nil {
		return usageError{fmt.Errorf("--%s %q: expected host:port, such as 127.0.0.1:7420, without %s://; --%s-ca asks for TLS%s", flag, target, scheme, tls, portOf(host))}
	}
	address := target
	switch scheme, rest, _ := strings.Cut(target, ":"); {
	case scheme == "dns": // with the authority that is asked, dns://authority/host:port, or without
		address = rest[strings.LastIndexByte(rest, '/')+1:]
	case resolver.Get(scheme) != nil:
		return nil
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil || port == "" {
		return usageError{fmt.Errorf("--%s %q: expected host:port, such as 127.0.0.1:7420%s", flag, target, portOf(address))}
	}
	if n, err := net.LookupPort("tcp", port); err != nil || n == 0 {
		return usageError{fmt.Errorf("--%s %q: %q is not a port, expected 1 to 65535", flag, target, port)}
	}
	if host == "" && strings.ContainsRune(target, '/') {
		return usageError{fmt.Errorf("--%s %q: the host is missing", flag, target)}
	}
	return nil
}

// portOf adds to an error that a host came without its port.
func portOf(address string) string {
	if _, port, err := net.SplitHostPort(strings.TrimSuffix(address, "/")); err != nil || port == "" {
		return "; the port is missing"
	}
	return ""
}
