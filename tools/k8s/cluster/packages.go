//go:build linux

package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// debian lists programs that are not built here, with the Debian package that has each.
var debian = []struct{ program, pkg string }{
	{"ip", "iproute2"},
	{"nft", "nftables"},
	{"iptables", "iptables"},
	{"conntrack", "conntrack"},
	{"runc", "runc"},
	{"/usr/lib/cni/bridge", "containernetworking-plugins"},
	{"nsenter", "util-linux"},
}

// CheckMachine returns an error that names everything that this machine lacks.
func CheckMachine() error {
	var lacks []string
	for _, d := range debian {
		if _, err := exec.LookPath(d.program); err != nil && !slices.Contains(lacks, d.pkg) {
			lacks = append(lacks, d.pkg)
		}
	}
	var failed error
	if len(lacks) > 0 {
		failed = fmt.Errorf("missing Debian packages: apt-get install -y --no-install-recommends %s", strings.Join(lacks, " "))
	}
	if os.Geteuid() != 0 {
		failed = errors.Join(failed, errors.New("a cluster needs root: namespaces, mounts and control groups"))
	}
	return failed
}
