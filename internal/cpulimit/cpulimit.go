// Package cpulimit tells how many processors the process may really use: those of its affinity mask, less
// what control groups allow it. It may import internal/cgroup.
package cpulimit

import (
	"math"
	"runtime"
	"strconv"
	"strings"

	"github.com/triptych-serving/triptych/internal/cgroup"
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

// quota is the tightest limit on processor time of the process's control groups, in processors; false when
// there is none. Paths are below root. The formats: the kernel's admin-guide/cgroup-v2 (cpu.max) and
// scheduler/sched-bwc (cpu.cfs_quota_us).
func quota(root string) (processors float64, limited bool) {
	for _, g := range cgroup.Groups(root, "cpu") {
		if q, ok := limitOf(g); ok && (!limited || q < processors) {
			processors, limited = q, true
		}
	}
	return processors, limited
}

// limitOf reads a group's own limit in processors.
func limitOf(g cgroup.Group) (float64, bool) {
	var quota, period string
	if g.V2 {
		quota, period, _ = strings.Cut(g.Read("cpu.max"), " ")
	} else {
		quota, period = g.Read("cpu.cfs_quota_us"), g.Read("cpu.cfs_period_us")
	}
	q, errQ := strconv.ParseFloat(strings.TrimSpace(quota), 64)
	p, errP := strconv.ParseFloat(strings.TrimSpace(period), 64)
	return q / p, errQ == nil && errP == nil && q > 0 && p > 0 // "max" and -1 are no limit
}
