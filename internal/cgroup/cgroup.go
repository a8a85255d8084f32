// Package cgroup finds the control groups whose limits hold for the process. It imports the standard library only.
package cgroup

import (
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Group is a control group that can be read.
type Group struct {
	V2  bool   // of version 2 of the kernel's interface
	dir string // with its root
}

// Groups is the process's group and the groups above it, as far as they are mounted, in every hierarchy that may have a
// controller such as "cpu"; none on systems without control groups. Paths are below root. The formats: cgroups(7),
// proc_pid_cgroup(5), proc_pid_mountinfo(5).
func Groups(root, controller string) (all []Group) {
	for _, m := range mounts(read(root, "/proc/self/mountinfo"), controller) {
		group, ok := groupOf(read(root, "/proc/self/cgroup"), controller, m.v2)
		if !ok {
			continue
		}
		for dir := m.inside(group); ; dir = path.Dir(dir) {
			all = append(all, Group{V2: m.v2, dir: filepath.Join(root, m.point, dir)})
			if dir == "/" {
				break
			}
		}
	}
	return all
}

// Read gives the text of one of a group's files, empty when it cannot be read.
func (g Group) Read(name string) string { return read(g.dir, name) }

// mount is where a hierarchy that may have a controller can be read.
type mount struct {
	v2    bool
	group string // mounted at point
	point string
}

// mounts reads /proc/self/mountinfo: "36 35 98:0 /group /point rw,noatime master:1 - cgroup2 cgroup rw".
func mounts(info, controller string) (all []mount) {
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range strings.Lines(info) {
		before, after, _ := strings.Cut(line, " - ")
		where, what := strings.Fields(before), strings.Fields(after)
		if len(where) < 5 || len(what) < 3 {
			continue
		}
		m := mount{v2: what[0] == "cgroup2", group: unescape.Replace(where[3]), point: unescape.Replace(where[4])}
		if m.v2 || what[0] == "cgroup" && has(what[2], controller) {
			all = append(all, m)
		}
	}
	return all
}

// groupOf reads /proc/self/cgroup: "4:cpu,cpuacct:/group" of version 1, "0::/group" of version 2.
func groupOf(cgroups, controller string, v2 bool) (group string, ok bool) {
	for line := range strings.Lines(cgroups) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) == 3 && (v2 && f[0] == "0" && f[1] == "" || !v2 && has(f[1], controller)) {
			return f[2], true
		}
	}
	return "", false
}

// inside is a group's path below the mount point: "/" for one that is not mounted there, for which the
// mounted one is the best that can be seen.
func (m mount) inside(group string) string {
	below, ok := strings.CutPrefix(group, strings.TrimSuffix(m.group, "/"))
	if !ok || below != "" && below[0] != '/' {
		return "/"
	}
	return path.Clean("/" + below)
}

// read gives a file's text, empty when it cannot be read.
func read(root, name string) string {
	data, _ := os.ReadFile(filepath.Join(root, name))
	return string(data)
}

func has(list, item string) bool {
	for s := range strings.SplitSeq(list, ",") {
		if s == item {
			return true
		}
	}
	return false
}
