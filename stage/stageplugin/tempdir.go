package stageplugin

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

const (
	// socketName is as long as what go-plugin adds to the folder of temporary files: a private folder in it and a socket in that.
	socketName = "/plugin-dir4294967295/plugin4294967295"
	// maxSocketPath is what the systems we know take, macOS the least.
	maxSocketPath = 103
)

// CheckTempDir refuses a folder of temporary files, $TMPDIR, that cannot hold the socket of a child.
func CheckTempDir() error {
	dir := os.TempDir()
	if most := maxSocketPath - len(socketName); len(dir) > most {
		return fmt.Errorf("TMPDIR is %q, of %d bytes: expected at most %d, since the paths of sockets in it are bounded", dir, len(dir), most)
	}
	probe, err := os.MkdirTemp("", "plugin-dir")
	if err == nil {
		err = os.Remove(probe)
	}
	if err != nil {
		var p *fs.PathError
		if errors.As(err, &p) {
			err = p.Err
		}
		return fmt.Errorf("TMPDIR is %q: expected a folder that this user can write to: %w", dir, err)
	}
	return nil
}
