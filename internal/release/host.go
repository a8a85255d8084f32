package release

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/triptych-serving/triptych/internal/cgroup"
)

// Host reads the memory of the process and of what it may use. Off Linux there is nothing to read.
type Host struct {
	root   string
	groups []cgroup.Group
}

// NewHost finds the control groups of the process.
func NewHost() *Host { return newHost("/") }

func newHost(root string) *Host { return &Host{root: root, groups: cgroup.Groups(root, "memory")} }

// Read fills in Process, HostUsed and HostTotal: those of the control group with the smallest limit, or of the machine if
// that is less. The formats: proc_pid_statm(5), proc_meminfo(5), and the kernel's admin-guide/cgroup-v2 (memory.max) and
// cgroup-v1/memory (memory.limit_in_bytes).
func (h *Host) Read(r *Reading) {
	statm, _ := os.ReadFile(filepath.Join(h.root, "proc/self/statm"))
	if f := strings.Fields(string(statm)); len(f) > 1 {
		r.Process = number(f[1]) * int64(os.Getpagesize())
	}
	meminfo, _ := os.ReadFile(filepath.Join(h.root, "proc/meminfo"))
	if total, available := field(string(meminfo), "MemTotal:"), field(string(meminfo), "MemAvailable:"); available > 0 {
		r.HostTotal, r.HostUsed = 1024*total, 1024*max(0, total-available)
	}
	for _, g := range h.groups {
		limit, usage, cache := "memory.max", "memory.current", "inactive_file"
		if !g.V2 {
			limit, usage, cache = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
		}
		total := number(g.Read(limit)) // "max" is none, and so is what exceeds the machine
		if total == 0 || r.HostTotal > 0 && total >= r.HostTotal {
			continue
		}
		// Files that nobody used lately go when memory is needed.
		r.HostTotal, r.HostUsed = total, max(0, number(g.Read(usage))-field(g.Read("memory.stat"), cache))
	}
}

// field is the number behind a name at the beginning of a line, 0 without.
func field(text, name string) int64 {
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == name {
			return number(f[1])
		}
	}
	return 0
}

// number is 0 for what is none.
func number(text string) int64 {
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}
