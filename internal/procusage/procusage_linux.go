package procusage

import (
	"bytes"
	"fmt"
	"os"
	"strings"
)

// Of is the process's page faults and processor time in proc_pid_stat(5); empty if they are not known.
func Of(pid int) string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:])) // from the third on
	if len(fields) < 13 {
		return ""
	}
	return fmt.Sprint(fields[7], fields[9], fields[11], fields[12]) // minflt, majflt, utime, stime
}
