package main

import (
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
)

// TestTarget: what names no server is refused, with what is wrong about it.
func TestTarget(t *testing.T) {
	for _, good := range []string{
		"127.0.0.1:7420", "localhost:1", "[::1]:7420", ":7420", "host:http", "dns:///host:7420", "dns://10.0.0.1/host:7420", "dns:host:7420", "unix:/run/t.sock", "unix:///run/t.sock",
		"passthrough:///bufnet",
	} {
		if err := checkTarget("server", "server", good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for bad, says := range map[string]string{
		"http://127.0.0.1:7420": "without http://",
		"DNS:///host:7420":      "such as dns:///host:7420",
		"grpc://host:7420":      "without grpc://",
		"https://host:7420/":    "--server-ca asks for TLS",
		"https://host/":         "the port is missing",
		"localhost":             "the port is missing",
		"localhost:":            "the port is missing",
		"::1":                   "host:port",
		"":                      "host:port",
		"host:99999":            "not a port",
		"host:0":                "not a port",
		"host:no-such-service":  "not a port",
		"dns:///host":           "the port is missing",
		"dns:///:7420":          "host is missing",
		"ftp://host:21":         "host:port",
	} {
		if err := checkTarget("server", "server", bad); err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "--server") || exitCode(t.Context(), err) != exitUsage {
			t.Errorf("%q: %v, want %q", bad, err, says)
		}
	}
}

// TestOtherServer: a server that speaks gRPC and is no orchestrator, such as a stage's, and one that was there again at once, are
// told apart from one that does not answer.
func TestOtherServer(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	answer := status.Error(codes.Unimplemented, "unknown service")
	server := grpc.NewServer(grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error { return answer }))
	go func() { _ = server.Serve(lis) }()
	defer server.Stop()
	f := serverFlags{address: lis.Addr().String()}
	for _, c := range []struct {
		answer error
		want   string
	}{
		{answer, f.address + " is no orchestrator"},
		{status.Error(codes.Unavailable, "error reading from server: EOF"), "the connection to the server at " + f.address + " was lost"},
	} {
		answer = c.answer
		err := f.watch(t.Context(), false, func(*triptychv1alpha1.WatchResidencyResponse) error { return nil })
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}
