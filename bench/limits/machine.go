package limits

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"github.com/triptych-serving/triptych/engine/device/cpu"
)

// Machine is where a report was made. What the system does not tell is empty or zero.
type Machine struct {
	CPU         string      `json:"cpu"`
	Cores       int         `json:"cores"`
	Caches      []cpu.Cache `json:"caches"`
	MemoryBytes int64       `json:"memory_bytes"`
	OS          string      `json:"os"`
	Arch        string      `json:"arch"`
	Kernel      string      `json:"kernel"` // release of the operating system's
	// LoadBefore and LoadAfter are the load averages of 1, 5 and 15 minutes: other work makes times worthless.
	LoadBefore string `json:"load_before"`
	LoadAfter  string `json:"load_after"`
}

// ThisMachine describes the machine, with its load now as LoadBefore.
func ThisMachine() Machine {
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	kib, _ := strconv.ParseInt(strings.TrimSuffix(Field("/proc/meminfo", "MemTotal"), " kB"), 10, 64)
	name := Field("/proc/cpuinfo", "model name")
	if family := Field("/proc/cpuinfo", "cpu family"); family != "" {
		name += fmt.Sprintf(" (family %s, model %s)", family, Field("/proc/cpuinfo", "model"))
	}
	return Machine{
		CPU: name, Cores: runtime.NumCPU(), Caches: cpu.Caches(), MemoryBytes: kib << 10, OS: runtime.GOOS, Arch: runtime.GOARCH,
		Kernel: strings.TrimSpace(string(release)), LoadBefore: LoadAverage(),
	}
}

// Field is the value of the first "key : value" line of a file, empty if there is none.
func Field(path, key string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if k, v, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// LoadAverage is the mean number of runnable threads of the last 1, 5 and 15 minutes.
func LoadAverage() string {
	data, err := os.ReadFile("/proc/loadavg")
	if f := strings.Fields(string(data)); err == nil && len(f) >= 3 {
		return strings.Join(f[:3], " ")
	}
	return ""
}

// AvailableMemory is what processes may still take without swapping, in bytes; 0 if the system does not tell.
func AvailableMemory() int64 {
	kib, _ := strconv.ParseInt(strings.TrimSuffix(Field("/proc/meminfo", "MemAvailable"), " kB"), 10, 64)
	return kib << 10
}
