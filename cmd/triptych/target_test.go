package main

import (
	"strings"
	"testing"
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
