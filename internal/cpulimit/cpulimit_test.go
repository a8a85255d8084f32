package cpulimit

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

const (
	v2Mount = "31 23 0:28 / /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
	v1Mount = "25 20 0:20 / /proc rw - proc proc rw\n" +
		"32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 master:2 - cgroup cgroup rw,cpu,cpuacct\n" +
		"34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset\n"
	v1Groups = "9:name=systemd:/job\n4:cpu,cpuacct:/a/b\n3:cpuset:/a/b\n0::/job\n"
)

func TestQuota(t *testing.T) {
	const mountinfo, cgroup = "proc/self/mountinfo", "proc/self/cgroup"
	type files map[string]string
	for name, c := range map[string]struct {
		files files
		want  float64 // 0 is no limit
	}{
		"nothing there": {files{}, 0},
		"v2, own group": {files{mountinfo: v2Mount, cgroup: "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "150000 100000\n"}, 1.5},
		"v2, unlimited": {files{mountinfo: v2Mount, cgroup: "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n", "sys/fs/cgroup/a/cpu.max": "max 100000\n"}, 0},
		"v2, the group above is tighter": {files{
			mountinfo: v2Mount, cgroup: "0::/a/b/c\n", "sys/fs/cgroup/a/b/c/cpu.max": "400000 100000\n",
			"sys/fs/cgroup/a/b/cpu.max": "max 100000\n", "sys/fs/cgroup/a/cpu.max": "100000 50000\n",
		}, 2},
		"v2, own group is tighter":        {files{mountinfo: v2Mount, cgroup: "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "50000 100000\n", "sys/fs/cgroup/a/cpu.max": "300000 100000\n"}, 0.5},
		"v2, a leaf without controller":   {files{mountinfo: v2Mount, cgroup: "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "300000 100000\n"}, 3},
		"v2, the root of a namespace":     {files{mountinfo: v2Mount, cgroup: "0::/\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2},
		"v2, outside the namespace":       {files{mountinfo: v2Mount, cgroup: "0::/../other\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2},
		"v2, a part is mounted":           {files{mountinfo: "31 23 0:28 /a /cg rw - cgroup2 cgroup2 rw\n", cgroup: "0::/a/b\n", "cg/b/cpu.max": "300000 100000\n", "cg/a/b/cpu.max": "100000 100000\n"}, 3},
		"v2, a part of almost that name":  {files{mountinfo: "31 23 0:28 /a /cg rw - cgroup2 cgroup2 rw\n", cgroup: "0::/ab\n", "cg/cpu.max": "300000 100000\n", "cg/b/cpu.max": "100000 100000\n"}, 3},
		"v2, a blank in the path":         {files{mountinfo: `31 23 0:28 / /c\040g rw - cgroup2 cgroup2 rw` + "\n", cgroup: "0::/a:b c\n", "c g/a:b c/cpu.max": "100000 100000\n"}, 1},
		"v1, own group":                   {files{mountinfo: v1Mount, cgroup: v1Groups, "sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_quota_us": "250000\n", "sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_period_us": "100000\n"}, 2.5},
		"v1, unlimited":                   {files{mountinfo: v1Mount, cgroup: v1Groups, "sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_period_us": "100000\n"}, 0},
		"v1, the group above is tighter":  {files{mountinfo: v1Mount, cgroup: v1Groups, "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "50000\n", "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000\n"}, 0.5},
		"v1, a container's own view":      {files{mountinfo: v1Mount, cgroup: "4:cpu,cpuacct:/docker/0a1b\n", "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "200000\n", "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n"}, 2},
		"v1 for processors beside v2":     {files{mountinfo: v1Mount + "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n", cgroup: v1Groups, "sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_quota_us": "100000\n", "sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_period_us": "100000\n"}, 1},
		"only cpuset, which is affinity":  {files{mountinfo: v1Mount, cgroup: "3:cpuset:/a/b\n", "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "100000\n", "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n"}, 0},
		"what makes no sense is no limit": {files{mountinfo: "x\n- -\n" + v2Mount, cgroup: "\n0:\n0::/a\n", "sys/fs/cgroup/a/cpu.max": "100000 0\n", "sys/fs/cgroup/cpu.max": "NaN x\n"}, 0},
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
			if got, limited := quota(root); limited != (c.want > 0) || limited && got != c.want {
				t.Errorf("%g processors (%t), want %g", got, limited, c.want)
			}
		})
	}
}

func TestProcessors(t *testing.T) {
	if n := Processors(); n < 1 || n > runtime.NumCPU() {
		t.Errorf("%d of %d processors", n, runtime.NumCPU())
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	if n := Processors(); n != 1 {
		t.Errorf("%d processors with GOMAXPROCS=1", n)
	}
}
