package rpcserver

import (
	"errors"
	"fmt"
	"net"
	"syscall"
)

// PortInUseError says that another program has the address.
type PortInUseError struct {
	Addr  string
	Cause error
}

// Error names the address and what to do.
func (e *PortInUseError) Error() string {
	return fmt.Sprintf("cannot listen on %s: the port is in use. Stop the program that has it, "+
		"or choose another port (port 0 takes a free one)", e.Addr)
}

// Unwrap gives the cause.
func (e *PortInUseError) Unwrap() error { return e.Cause }

// Listen opens the TCP address host:port. A port that is taken is a *PortInUseError.
func Listen(addr string) (net.Listener, error) {
	lis, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, &PortInUseError{Addr: addr, Cause: err}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %q: %w", addr, err)
	}
	return lis, nil
}
