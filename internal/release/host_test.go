package release

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

const (
	v2Mount = "31 23 0:28 / /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
	v1Mount = "32 31 0:29 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n"
)

func TestHost(t *testing.T) {
	const mountinfo, groups, meminfo, statm = "proc/self/mountinfo", "proc/self/cgroup", "proc/meminfo", "proc/self/statm"
	const machine = "MemTotal:       16000 kB\nMemFree:         100 kB\nMemAvailable:    4000 kB\n"
	type files map[string]string
	for name, c := range map[string]struct {
		files files
		want  Reading
	}{
		"nothing there":       {files{}, Reading{}},
		"a machine":           {files{meminfo: machine, statm: "900 30 20 1 0 5 0\n"}, Reading{Process: 30 * int64(os.Getpagesize()), HostUsed: 12000 << 10, HostTotal: 16000 << 10}},
		"an old kernel":       {files{meminfo: "MemTotal: 16000 kB\nMemFree: 100 kB\n"}, Reading{}},
		"what makes no sense": {files{meminfo: "MemTotal:\nMemAvailable: many kB\n", statm: "x y"}, Reading{}},
		"v2": {files{
			meminfo: machine, mountinfo: v2Mount, groups: "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "8000000\n",
			"sys/fs/cgroup/a/b/memory.current": "5000000\n", "sys/fs/cgroup/a/b/memory.stat": "anon 1\nactive_file 7\ninactive_file 1000000\n",
		}, Reading{HostUsed: 4000000, HostTotal: 8000000}},
		"v2, the group above is tighter": {files{
			meminfo: machine, mountinfo: v2Mount, groups: "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "8000000\n", "sys/fs/cgroup/a/b/memory.current": "1\n",
			"sys/fs/cgroup/a/memory.max": "6000000\n", "sys/fs/cgroup/a/memory.current": "3000000\n",
		}, Reading{HostUsed: 3000000, HostTotal: 6000000}},
		"v2, no limit":              {files{meminfo: machine, mountinfo: v2Mount, groups: "0::/a\n", "sys/fs/cgroup/a/memory.max": "max\n", "sys/fs/cgroup/a/memory.current": "5\n"}, Reading{HostUsed: 12000 << 10, HostTotal: 16000 << 10}},
		"v2, more than the machine": {files{meminfo: machine, mountinfo: v2Mount, groups: "0::/a\n", "sys/fs/cgroup/a/memory.max": "17000000\n"}, Reading{HostUsed: 12000 << 10, HostTotal: 16000 << 10}},
		"v2, all is cache":          {files{meminfo: machine, mountinfo: v2Mount, groups: "0::/a\n", "sys/fs/cgroup/a/memory.max": "8000\n", "sys/fs/cgroup/a/memory.current": "5\n", "sys/fs/cgroup/a/memory.stat": "inactive_file 6\n"}, Reading{HostTotal: 8000}},
		"v1": {files{
			meminfo: machine, mountinfo: v1Mount, groups: "4:memory:/a\n", "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "8000000\n",
			"sys/fs/cgroup/memory/a/memory.usage_in_bytes": "5000000\n", "sys/fs/cgroup/memory/a/memory.stat": "inactive_file 1\ntotal_inactive_file 2000000\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, Reading{HostUsed: 3000000, HostTotal: 8000000}},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for file, text := range c.files {
				path := filepath.Join(root, file)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var got Reading
			newHost(root).Read(&got)
			if got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

// The real one sees this process.
func TestThisHost(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("there is nothing to read")
	}
	var r Reading
	NewHost().Read(&r)
	if r.Process < mebi || r.HostUsed < r.Process/2 || r.HostTotal < r.HostUsed {
		t.Errorf("%+v", r)
	}
}

func BenchmarkRead(b *testing.B) {
	h := NewHost()
	for b.Loop() {
		var r Reading
		h.Read(&r)
	}
}
