package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func shared(t *testing.T, args ...string) *shareFlags {
	t.Helper()
	var f shareFlags
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	f.add(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return &f
}

// TestHost: what the operator says goes before the node's name, that before the hostname, and the child process of a service
// gets the same.
func TestHost(t *testing.T) {
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(nodeEnv, "")
	if got := shared(t).host; got != name {
		t.Errorf("%q, want the hostname %q", got, name)
	}
	t.Setenv(nodeEnv, "node-7")
	if got := shared(t).host; got != "node-7" {
		t.Errorf("%q, want that of $%s", got, nodeEnv)
	}
	service := shared(t, "--host", "rack-1", "--device-claims", "/run/claim")
	if *service != (shareFlags{"rack-1", "/run/claim"}) {
		t.Errorf("got %+v", service)
	}
	if child := shared(t, service.args()...); *child != *service {
		t.Errorf("the child gets %+v of %+v", child, service)
	}
	if args := (&runtimeFlags{share: *service}).args(0); !slices.Contains(args, "rack-1") {
		t.Errorf("the runtime is started with %q", args)
	}
}

func TestHostRefused(t *testing.T) {
	for _, host := range []string{"", ".", "..", ".hidden", "a/b", "/", `a\b`, "a b", "a\n", "a\x00", "a\x7f", "a\u200b", "\xff", strings.Repeat("a", 254)} {
		err := shared(t, "--host", host).check()
		if !errors.As(err, new(usageError)) || !strings.Contains(err.Error(), "--host") || !strings.Contains(err.Error(), "expected") {
			t.Errorf("%q: %v", host, err)
		}
	}
	for _, host := range []string{"a", "node-7.rack.example", "größe", strings.Repeat("a", 253)} {
		if err := shared(t, "--host", host).check(); err != nil {
			t.Errorf("%q: %v", host, err)
		}
	}
	t.Setenv(nodeEnv, "a/b")
	if err := shared(t).check(); err == nil {
		t.Errorf("$%s is not checked", nodeEnv)
	}
}

// TestClaimDirectory: hosts that share a home do not share a directory, and without a budget there is none.
func TestClaimDirectory(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CACHE_HOME", filepath.Join(home, "cache"))
	t.Setenv(claimEnv, "")
	a, b := shared(t, "--host", "a").directory(1), shared(t, "--host", "b").directory(1)
	if a == b || filepath.Base(a) != "a" || !strings.HasPrefix(a, home) {
		t.Errorf("%q and %q", a, b)
	}
	if got := shared(t, "--host", "a", "--device-claims", "/run/claim").directory(1); got != "/run/claim" {
		t.Errorf("got %q", got)
	}
	for budget, args := range map[byteSize][]string{0: {"--device-claims", "/run/claim"}, 1: {"--device-claims", claimOff}} {
		if got := shared(t, args...).directory(budget); got != "" {
			t.Errorf("%q with a budget of %d: %q", args, budget, got)
		}
	}
}

// TestClaimMissing: a directory that is given and not there is no second budget, but an error that names flag, value and what is
// accepted, and nothing is made.
func TestClaimMissing(t *testing.T) {
	t.Setenv(claimEnv, "")
	dir := t.TempDir()
	missing, file := filepath.Join(dir, "missing"), filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{missing, file} {
		err := shared(t, "--host", "a", "--device-claims", path).check()
		if !errors.As(err, new(usageError)) {
			t.Errorf("%s: %v", path, err)
			continue
		}
		for _, part := range []string{"--device-claims", path, "expected", claimOff} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q does not say %q", err, part)
			}
		}
	}
	if isDir(missing) {
		t.Error("the directory was made")
	}
	for _, path := range []string{dir, claimOff, ""} {
		if err := shared(t, "--host", "a", "--device-claims", path).check(); err != nil {
			t.Errorf("%q: %v", path, err)
		}
	}
	t.Setenv(claimEnv, missing)
	if err := shared(t, "--host", "a").check(); err == nil || !strings.Contains(err.Error(), claimEnv) {
		t.Errorf("the environment's: %v", err)
	}
}
