//go:build linux

package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// A Container is one that runs on the real node.
type Container struct{ group string } // its control group, which counts memory

// Containers counts those that the node runs, the first ones of pods included.
func (c *Cluster) Containers(ctx context.Context) (int, error) {
	out, err := c.ctr(ctx, "tasks", "ls", "-q")
	count := 0
	for range strings.FieldsSeq(out) {
		count++
	}
	return count, err
}

// Container finds a container by its pod's UID and its id, of the form containerd://ID.
func (c *Cluster) Container(uid, id string) (Container, error) {
	_, id, ok := strings.Cut(id, "://")
	if !ok {
		return Container{}, errors.New("the container has no id yet")
	}
	var found string
	err := filepath.WalkDir(memoryHierarchy(), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == id {
			found = path
			return filepath.SkipAll
		}
		return nil //nolint:nilerr // groups come and go while it walks
	})
	if err == nil && found == "" {
		err = fmt.Errorf("pod %s has no control group of a container %s", uid, id)
	}
	return Container{group: found}, err
}

// memoryHierarchy is the cluster's control group that counts memory.
func memoryHierarchy() string {
	for _, root := range hierarchies() {
		if filepath.Base(root) == "memory" || filepath.Base(root) == "cgroup" {
			return filepath.Join(root, cgroupName)
		}
	}
	return ""
}

// Processes are those of the container, parents before children: the service, then its runtime.
func (c Container) Processes() ([]int, error) {
	text, err := os.ReadFile(filepath.Join(c.group, "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	var pids []int
	for field := range strings.FieldsSeq(string(text)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			return nil, err
		}
		pids = append(pids, pid)
	}
	slices.SortFunc(pids, func(a, b int) int {
		if parent(b) == a {
			return -1
		}
		if parent(a) == b {
			return 1
		}
		return a - b
	})
	return pids, nil
}

// parent is the process that started another; 0 if it has ended.
func parent(pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	id, _ := strconv.Atoi(fields[1])
	return id
}

// Kill ends a process of a container at once.
func (c Container) Kill(pid int) error { return syscall.Kill(pid, syscall.SIGKILL) }

// MemoryLimit is the most bytes that the container may use.
func (c Container) MemoryLimit() (int64, error) {
	return c.number("memory.limit_in_bytes", "memory.max")
}

// MemoryUsed is what it uses now, without the files that the kernel keeps for it and can drop.
func (c Container) MemoryUsed() (int64, error) {
	text, err := os.ReadFile(filepath.Join(c.group, "memory.stat"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name == "total_rss" || name == "anon" {
			return strconv.ParseInt(value, 10, 64)
		}
	}
	return 0, errors.New("memory.stat tells no anonymous memory")
}

// number reads the first of several files that is there.
func (c Container) number(names ...string) (int64, error) {
	var last error
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(c.group, name))
		if err == nil {
			return strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		}
		last = err
	}
	return 0, last
}
