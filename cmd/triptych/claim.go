package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/pflag"

	"github.com/triptych-serving/triptych/internal/deviceclaim"
)

// shareFlags say which memory a device's is, and where the processes that have it meet.
type shareFlags struct {
	host  string
	claim string // see directory
}

// claimOff says that a device is shared with nobody.
const claimOff = "off"

const (
	claimEnv = "TRIPTYCH_DEVICE_CLAIMS"
	nodeEnv  = "NODE_NAME"
)

func (f *shareFlags) add(flags *pflag.FlagSet) {
	name, _ := os.Hostname() // without one, check asks for the flag
	flags.StringVar(&f.host, "host", cmp.Or(os.Getenv(nodeEnv), name),
		"name of what the device belongs to: processes that agree in host and device share a memory budget ($"+nodeEnv+"; default: the hostname)")
	flags.Lookup("host").DefValue = "" // it is told in words
	flags.StringVar(&f.claim, "device-claims", os.Getenv(claimEnv),
		"existing directory where the processes of this host that have a memory budget share it, or "+claimOff+" ($"+claimEnv+"; default: one for the user)")
}

// args are the flags on a command line again.
func (f *shareFlags) args() []string {
	args := []string{"--host", f.host}
	if f.claim != "" {
		args = append(args, "--device-claims", f.claim)
	}
	return args
}

// maxHostBytes is the longest name of a machine in the domain name system.
const maxHostBytes = 253

// check refuses a host's name that could not be told, or that would name more than one folder, and a directory that is not there:
// one that was made here would be a budget beside the others'. Both are bad usage.
func (f *shareFlags) check() error {
	odd := func(r rune) bool { return r == '/' || r == '\\' || unicode.IsSpace(r) || !unicode.IsPrint(r) }
	if f.host == "" || len(f.host) > maxHostBytes || f.host[0] == '.' || !utf8.ValidString(f.host) || strings.ContainsFunc(f.host, odd) {
		return usageError{fmt.Errorf("--host %.300q (or $%s): expected a name of 1 to %d bytes without slashes, spaces or control characters, and no dot at its start", f.host, nodeEnv, maxHostBytes)}
	}
	if f.claim != "" && f.claim != claimOff && !isDir(f.claim) {
		return usageError{fmt.Errorf("--device-claims %q (or $%s): there is no such directory; expected one that all processes on the device have, such as a volume, or %s", f.claim, claimEnv, claimOff)}
	}
	return nil
}

// open opens a device's claim in a directory, which is made if nobody has given it.
func (f *shareFlags) open(dir, device string, budget byteSize) (*deviceclaim.Claim, error) {
	if f.claim == "" {
		if err := deviceclaim.MakeOwn(dir); err != nil {
			return nil, err
		}
	}
	return deviceclaim.Open(dir, device, int64(budget))
}

// directory is where processes with a budget share their devices: what is given, or the user's own, which is the same
// for all of them. It is empty where there is nothing to share.
func (f *shareFlags) directory(budget byteSize) string {
	if f.claim == claimOff || budget == 0 {
		return ""
	}
	if f.claim != "" {
		return f.claim
	}
	cache, err := os.UserCacheDir()
	if err == nil {
		dir := filepath.Join(cache, "triptych", "claim", f.host) // a home may be that of many hosts
		if err = os.MkdirAll(dir, 0o700); err == nil {
			return dir
		}
	}
	// Services of clusters often have no home that they can write to.
	return filepath.Join(os.TempDir(), fmt.Sprintf("triptych-%d", os.Geteuid()))
}
