//go:build linux

package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// State says which process is the first of a sandbox: its id, and when the kernel started it, since
// ids are given again.
type State struct {
	PID   int    `json:"pid"`
	Start string `json:"start"`
}

func statePath(dir string) string { return filepath.Join(dir, "state.json") }

func writeState(dir string, pid int) error {
	start, err := startTime(pid)
	if err != nil {
		return err
	}
	text, err := json.Marshal(State{PID: pid, Start: start})
	if err != nil {
		return err
	}
	return os.WriteFile(statePath(dir), text, 0o600)
}

// Running returns the sandbox of the folder, if its first process is alive.
func Running(dir string) (State, bool) {
	var s State
	text, err := os.ReadFile(statePath(dir))
	if err != nil || json.Unmarshal(text, &s) != nil {
		return State{}, false
	}
	start, err := startTime(s.PID)
	return s, err == nil && start == s.Start
}

// startTime is the 22nd field of /proc/PID/stat. The second one is in parentheses and may hold
// spaces.
func startTime(pid int) (string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	_, rest, _ := strings.Cut(string(text[strings.LastIndexByte(string(text), ')')+1:]), " ")
	fields := strings.Fields(rest)
	if len(fields) < 20 {
		return "", fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	if fields[0] == "Z" {
		return "", fmt.Errorf("process %d has ended", pid)
	}
	return fields[19], nil
}

// Down ends the sandbox of a folder, whoever started it, and removes what it left: control groups
// and the folder. Without a sandbox it only removes. It reports whether a sandbox was running.
func Down(dir string) (bool, error) {
	state, running := Running(dir)
	if running {
		if err := syscall.Kill(state.PID, syscall.SIGKILL); err != nil {
			return true, err
		}
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			if _, alive := Running(dir); !alive {
				break
			}
			if time.Now().After(deadline) {
				return true, fmt.Errorf("process %d of the cluster did not end within 20 s of SIGKILL", state.PID)
			}
		}
	}
	return running, errors.Join(removeCgroups(), removeAll(dir))
}

// removeAll removes a folder, of which mounts may hold parts for a moment after their namespace ended.
func removeAll(dir string) error {
	var err error
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if err = os.RemoveAll(dir); err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
	}
	return err
}

// Lock makes this process the only one that starts or ends clusters in the folder, until it closes the
// lock or ends.
func Lock(dir string) (io.Closer, error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o750); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("another process runs a cluster in %s", dir)
	}
	return file, nil
}
