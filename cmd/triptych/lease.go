package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"
)

// leaseOff says that a device is shared with nobody.
const leaseOff = "off"

const leaseEnv = "TRIPTYCH_DEVICE_LEASE"

func leaseFlag(flags *pflag.FlagSet, dir *string) {
	flags.StringVar(dir, "device-lease", os.Getenv(leaseEnv),
		"directory where the processes of this host that have a memory budget share it, or "+leaseOff+" ($"+leaseEnv+"; default: one for the user)")
}

// leaseDirectory is where processes with a budget share their devices: what is given, or the user's own, which is the same
// for all of them. It is empty where there is nothing to share.
func leaseDirectory(given, host string, budget byteSize) string {
	if given == leaseOff || budget == 0 {
		return ""
	}
	if given != "" {
		return given
	}
	cache, err := os.UserCacheDir()
	if err == nil {
		dir := filepath.Join(cache, "triptych", "lease", cmp.Or(host, "localhost")) // a home may be that of many hosts
		if err = os.MkdirAll(dir, 0o700); err == nil {
			return dir
		}
	}
	// Services of clusters often have no home that they can write to.
	return filepath.Join(os.TempDir(), fmt.Sprintf("triptych-%d", os.Geteuid()))
}
