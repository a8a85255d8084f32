// Package cpulimit tells how many processors the process may really use: those of its affinity mask, less
// what control groups allow it. It imports the standard library only.
package cpulimit

import (
	"math"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// Processors is how many threads can compute at once in this process, at least 1: the smallest of the
// affinity mask (runtime.NumCPU), GOMAXPROCS, and the quota of its control groups rounded up, so that no
// part of a quota stays unused.
//
// GOMAXPROCS alone does not do: as of Go 1.27 it knows the quota of the process's own group but not a
// tighter one of a group above (golang/go issue 81180), and never is below 2 for a quota.
func Processors() int {
	n := min(runtime.NumCPU(), runtime.GOMAXPROCS(0))
	if q, limited := quota("/"); limited {
		n = min(n, int(math.Ceil(q)))
	}
	return max(n, 1)
}

// quota is the tightest limit on processor time of the process's control group and the groups above it, as
// far as they are mounted, in processors; false when there is none, as on systems without control groups.
// Paths are below root. The formats: cgroups(7), proc_pid_cgroup(5), proc_pid_mountinfo(5), and the kernel's
// admin-guide/cgroup-v2 (cpu.max) and scheduler/sched-bwc (cpu.cfs_quota_us).
func quota(root string) (processors float64, limited bool) {
	for _, m := range mounts(read(root, "/proc/self/mountinfo")) {
		group, ok := groupOf(read(root, "/proc/self/cgroup"), m.v2)
		if !ok {
			continue
		}
		for dir := m.inside(group); ; dir = path.Dir(dir) {
			q, ok := limitOf(root, path.Join(m.point, dir), m.v2)
			if ok && (!limited || q < processors) {
				processors, limited = q, true
			}
			if dir == "/" {
				break
			}
		}
	}
	return processors, limited
}

// mount is where a hierarchy that may limit processor time can be read.
type mount struct {
	v2    bool
	group string // mounted at point
	point string
}

// mounts reads /proc/self/mountinfo: "36 35 98:0 /group /point rw,noatime master:1 - cgroup2 cgroup rw".
func mounts(info string) (all []mount) {
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range strings.Lines(info) {
		before, after, _ := strings.Cut(line, " - ")
		where, what := strings.Fields(before), strings.Fields(after)
		if len(where) < 5 || len(what) < 3 {
			continue
		}
		m := mount{v2: what[0] == "cgroup2", group: unescape.Replace(where[3]), point: unescape.Replace(where[4])}
		if m.v2 || what[0] == "cgroup" && has(what[2], "cpu") {
			all = append(all, m)
		}
	}
	return all
}

// groupOf reads /proc/self/cgroup: "4:cpu,cpuacct:/group" of version 1, "0::/group" of version 2.
func groupOf(cgroups string, v2 bool) (group string, ok bool) {
	for line := range strings.Lines(cgroups) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) == 3 && (v2 && f[0] == "0" && f[1] == "" || !v2 && has(f[1], "cpu")) {
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

// limitOf reads a group's own limit in processors.
func limitOf(root, dir string, v2 bool) (float64, bool) {
	var quota, period string
	if v2 {
		quota, period, _ = strings.Cut(read(root, dir+"/cpu.max"), " ")
	} else {
		quota, period = read(root, dir+"/cpu.cfs_quota_us"), read(root, dir+"/cpu.cfs_period_us")
	}
	q, errQ := strconv.ParseFloat(strings.TrimSpace(quota), 64)
	p, errP := strconv.ParseFloat(strings.TrimSpace(period), 64)
	return q / p, errQ == nil && errP == nil && q > 0 && p > 0 // "max" and -1 are no limit
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
