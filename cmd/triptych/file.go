package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// standardOutput is the name of a file that is written to standard output.
const standardOutput = "-"

// isStandardOutput tells whether a file is standard output, by its own name or by another one, such as /dev/stdout.
func isStandardOutput(path string) bool {
	if path == standardOutput {
		return true
	}
	named, err := os.Stat(path)
	if err != nil {
		return false
	}
	out, err := os.Stdout.Stat()
	return err == nil && os.SameFile(named, out)
}

// isStream tells whether what is written to a file is not kept there: standard output, a FIFO or a device.
func isStream(path string) bool {
	info, err := os.Stat(path)
	return isStandardOutput(path) || err == nil && !info.Mode().IsRegular() && !info.IsDir()
}

// talk is where a command tells what it does: standard error where one of its files is standard output.
func talk(cmd *cobra.Command, files ...string) io.Writer {
	for _, path := range files {
		if isStandardOutput(path) {
			return cmd.ErrOrStderr()
		}
	}
	return cmd.OutOrStdout()
}

// openFile opens the file of a flag for reading. Errors are bad usage.
func openFile(flag, path string) (*os.File, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, usageError{fmt.Errorf("--%s: %w", flag, err)}
	}
	return file, nil
}

// probe shows that the file of a flag can be written, by a temporary one beside it if there is none yet. Errors are bad
// usage.
func probe(flag, path string) error {
	if path == standardOutput {
		return nil
	}
	target, info, err := follow(path)
	switch {
	case err != nil:
	case info == nil:
		var f *os.File
		if f, err = createBeside(target); err == nil {
			err = errors.Join(f.Close(), os.Remove(f.Name()))
		}
	case info.IsDir():
		return usageError{fmt.Errorf("--%s %s is a folder, expected a file", flag, path)}
	case info.Mode()&fs.ModeSocket != 0:
		return usageError{fmt.Errorf("--%s %s is a socket, expected a file", flag, path)}
	default:
		err = unix.Access(target, unix.W_OK)
	}
	if err != nil {
		return usageError{fmt.Errorf("--%s %s cannot be written: %w", flag, path, err)}
	}
	return nil
}

// writeWhole writes a file so that nobody sees half of it: a regular one is replaced at once, and keeps its owner and
// mode. Links are followed. What is no regular file, such as a FIFO or a device, is written through, for as long as ctx
// lasts; and so is what cannot be replaced because of its folder.
func writeWhole(ctx context.Context, path string, data []byte) error {
	target, info, err := follow(path)
	switch {
	case err != nil:
		return err
	case info == nil || info.Mode().IsRegular():
		err = replace(target, info, data)
		if info == nil || !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.EROFS) && !errors.Is(err, syscall.EBUSY) {
			return err
		}
	}
	return whileLasts(ctx, func() error {
		f, err := os.OpenFile(target, os.O_WRONLY|os.O_TRUNC, 0)
		if err != nil {
			return err
		}
		_, err = f.Write(data)
		return errors.Join(err, f.Close())
	})
}

// whileLasts does what cannot be interrupted, such as writing to what nobody reads, and no longer waits for it when ctx ends.
func whileLasts(ctx context.Context, do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// replace writes data beside a file and puts it in its place; info is of the file that is there, nil for none.
func replace(path string, info fs.FileInfo, data []byte) error {
	f, err := createBeside(path)
	if err != nil {
		return err
	}
	if info != nil { // before there is anything to be read
		if old, ok := info.Sys().(*syscall.Stat_t); ok {
			_ = f.Chown(int(old.Uid), int(old.Gid)) // only root may give files away
		}
		err = f.Chmod(info.Mode().Perm())
	}
	if err == nil {
		_, err = f.Write(data)
	}
	err = called(path, err)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// createBeside makes a temporary file in the folder of path, with the mode of any new file.
func createBeside(path string) (*os.File, error) {
	dir, _ := filepath.Split(path)
	f, err := os.OpenFile(dir+".triptych-"+rand.Text(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666) //nolint:gosec // umask is what says who may read the files of a user
	return f, called(path, err)
}

// called is the error of a temporary file under the name that it was for.
func called(path string, err error) error {
	if wrong, ok := err.(*fs.PathError); ok { //nolint:errorlint // as package os made it
		return &fs.PathError{Op: wrong.Op, Path: path, Err: wrong.Err}
	}
	return err
}

// follow gives the file that path leads to over links; info is nil if it is not there.
func follow(path string) (target string, info fs.FileInfo, err error) {
	info, err = os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		for to, err := os.Readlink(path); err == nil; to, err = os.Readlink(path) { // not for ever: Stat refuses circles
			if !filepath.IsAbs(to) {
				dir, _ := filepath.Split(path)
				to = dir + to
			}
			path = to
		}
		return path, nil, nil
	}
	if err != nil {
		return path, nil, err
	}
	if info.Mode().IsRegular() {
		path, err = filepath.EvalSymlinks(path)
	}
	return path, info, err
}
