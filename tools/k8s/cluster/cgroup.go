//go:build linux

package cluster

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// cgroupName is the control group, in every hierarchy, below which all pods lie.
const cgroupName = "triptych-k8s"

// hierarchies are the roots of the machine's control groups: one of version 2, several of version 1.
func hierarchies() []string {
	const root = "/sys/fs/cgroup"
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err == nil {
		return []string{root}
	}
	found, _ := filepath.Glob(root + "/*")
	return slices.DeleteFunc(found, func(path string) bool {
		info, err := os.Lstat(path)
		return err != nil || !info.IsDir()
	})
}

// makeCgroups makes the control group of the pods. In version 1 a new group has no processors and
// no memory nodes until it is given its parent's.
func makeCgroups() error {
	for _, root := range hierarchies() {
		group := filepath.Join(root, cgroupName)
		if err := os.MkdirAll(group, 0o750); err != nil {
			return err
		}
		for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
			have, err := os.ReadFile(filepath.Join(root, name))
			if err != nil {
				continue
			}
			if err := os.WriteFile(filepath.Join(group, name), have, 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}

// removeCgroups removes the group of the pods and all below. A group is busy for a moment after its
// last process has ended.
func removeCgroups() error {
	var failed error
	for _, root := range hierarchies() {
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			err := removeCgroup(filepath.Join(root, cgroupName))
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				failed = errors.Join(failed, err)
				break
			}
		}
	}
	return failed
}

// removeCgroup removes a group from its leaves up, for groups go only by rmdir.
func removeCgroup(group string) error {
	var folders []string
	err := filepath.WalkDir(group, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			folders = append(folders, path)
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, folder := range slices.Backward(folders) {
		if err := os.Remove(folder); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
