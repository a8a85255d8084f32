// Package tool builds the programs of other projects that the chart and the cluster are tested with, each from
// the version that a go.mod below tools/k8s pins, and keeps them in a cache that outlives the clone.
//
// It imports the standard library alone.
package tool

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
)

// A source says where a program comes from.
type source struct {
	module  string // the folder below tools/k8s that has its go.mod
	pkg     string // what to build, by import path, or ./FOLDER for a program of ours in that module
	ldflags string // beside -s -w; {version} stands for the pinned version of the module of pkg
}

// Path returns the file of a program, which it builds if it is missing or was built from another pin.
// Several processes may ask at once: one builds, the others wait. A name that no source has is an error.
func Path(ctx context.Context, name string) (string, error) {
	s, ok := sources[name]
	if !ok {
		return "", fmt.Errorf("no tool is called %q: there are %s", name, strings.Join(Names(), ", "))
	}
	root, err := Root()
	if err != nil {
		return "", err
	}
	cache, err := Cache()
	if err != nil {
		return "", err
	}
	path, err := s.built(ctx, filepath.Join(root, "tools", "k8s", s.module), filepath.Join(cache, "bin"), name)
	if err != nil {
		return "", fmt.Errorf("tool %s: %w", name, err)
	}
	return path, nil
}

// Paths builds what is missing of several programs and returns the one folder that has them all.
func Paths(ctx context.Context, names ...string) (string, error) {
	for _, name := range names {
		if _, err := Path(ctx, name); err != nil {
			return "", err
		}
	}
	cache, err := Cache()
	return filepath.Join(cache, "bin"), err
}

// Names are those of all programs, sorted.
func Names() []string {
	names := make([]string, 0, len(sources))
	for name := range sources {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Cache is the folder of everything that outlives a clone: triptych-k8s in $XDG_CACHE_HOME, else in ~/.cache.
func Cache() (string, error) {
	cache := os.Getenv("XDG_CACHE_HOME")
	if cache == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		cache = filepath.Join(home, ".cache")
	}
	return filepath.Join(cache, "triptych-k8s"), nil
}

// Root is the folder of this repository: the nearest one above the working directory that has this package.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "tools", "k8s", "tool", "tool.go")); err == nil {
			return dir, nil
		}
		above := filepath.Dir(dir)
		if above == dir {
			return "", errors.New("the working directory is in no clone of Triptych")
		}
		dir = above
	}
}

// built returns bin/name, made anew unless it has the pin of now.
func (s source) built(ctx context.Context, module, bin, name string) (string, error) {
	if err := os.MkdirAll(bin, 0o755); err != nil { //nolint:gosec // programs are for everybody
		return "", err
	}
	pin, err := s.pin(module)
	if err != nil {
		return "", err
	}
	unlock, err := Lock(filepath.Join(bin, "."+name+".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	path, pinned := filepath.Join(bin, name), filepath.Join(bin, "."+name+".pin")
	have, _ := os.ReadFile(pinned)
	if _, err := os.Stat(path); err == nil && string(have) == pin {
		return path, nil
	}
	if err := s.build(ctx, module, path); err != nil {
		return "", err
	}
	return path, os.WriteFile(pinned, []byte(pin), 0o644) //nolint:gosec // it is no secret
}

// build builds the program into a file beside path and renames it, so that one that runs is left alone.
func (s source) build(ctx context.Context, module, path string) error {
	ldflags, err := s.flags(module)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "building %s from %s\n", filepath.Base(path), s.pkg)
	next := path + ".next"
	defer os.Remove(next) //nolint:errcheck // it is gone if all went well
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", ldflags, "-o", next, s.pkg)
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+runtime.GOOS, "GOARCH="+runtime.GOARCH, "GOWORK=off", "GOFLAGS=-buildvcs=false")
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", s.pkg, err, bytes.TrimSpace(said.Bytes()))
	}
	return os.Rename(next, path)
}

// pin is a digest of everything that the program is made from.
func (s source) pin(module string) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, s.pkg, s.ldflags, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	files := []string{filepath.Join(module, "go.mod"), filepath.Join(module, "go.sum")}
	if strings.HasPrefix(s.pkg, "./") {
		ours, err := filepath.Glob(filepath.Join(module, s.pkg, "*"))
		if err != nil {
			return "", err
		}
		files = append(files, ours...)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) && filepath.Base(name) == "go.sum" {
			continue // a module that needs no other
		}
		if err != nil {
			return "", err
		}
		fmt.Fprintln(h, filepath.Base(name), len(data))
		if _, err := io.Copy(h, bytes.NewReader(data)); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// flags are those of the linker.
func (s source) flags(module string) (string, error) {
	flags := strings.TrimSpace("-s -w " + s.ldflags)
	if !strings.Contains(flags, "{version}") {
		return flags, nil
	}
	version, err := pinned(filepath.Join(module, "go.mod"), s.pkg)
	return strings.ReplaceAll(flags, "{version}", version), err
}

// pinned is the version that a go.mod requires of the module of a package.
func pinned(gomod, pkg string) (string, error) {
	data, err := os.ReadFile(gomod)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(strings.TrimPrefix(line, "require "))
		if len(f) >= 2 && strings.HasPrefix(f[1], "v") && (pkg == f[0] || strings.HasPrefix(pkg, f[0]+"/")) {
			return f[1], nil
		}
	}
	return "", fmt.Errorf("%s requires no module that has the package %s", gomod, pkg)
}

// Lock waits for the lock of a file, which it makes, and returns how to give it back. It ends with its process.
func Lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644) //nolint:gosec // it is empty
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}
