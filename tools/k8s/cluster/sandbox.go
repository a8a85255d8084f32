//go:build linux

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// roleVariable tells a process of the sandbox what it is: nothing for the one outside, which starts
// the sandbox, "init" for the sandbox's first process and "inside" for the program itself.
const roleVariable = "TRIPTYCH_K8S_ROLE"

// reportFD is where the program inside tells the one outside how it ended.
const reportFD = 3

// Inside reports whether this process is the program inside the sandbox.
func Inside() bool { return os.Getenv(roleVariable) == "inside" }

// Init does the work of the sandbox's first process and does not return, in that process. In any
// other it returns at once; a program that calls Sandbox calls it first.
func Init() {
	if os.Getenv(roleVariable) != "init" {
		return
	}
	code, err := initSandbox()
	if err != nil {
		fmt.Fprintln(os.Stderr, "sandbox:", err)
		code = 1
	}
	os.Exit(code)
}

// Sandbox runs this program again, with the same arguments, in namespaces of its own and returns its
// exit code. With keep, the sandbox outlives this process: Sandbox returns when the program inside
// calls Report, and Down ends the rest. A cancelled context asks the program inside to end, and a
// killed caller ends it at once, without keep.
func Sandbox(ctx context.Context, dir string, keep bool) (int, error) {
	report, reportEnd, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer func() { _ = report.Close() }()
	said, saidEnd, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer func() { _ = said.Close() }()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...) //nolint:gosec // itself
	cmd.Env = append(os.Environ(), roleVariable+"=init")
	cmd.Stdout, cmd.Stderr = saidEnd, saidEnd
	cmd.ExtraFiles = []*os.File{reportEnd}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC,
		Setsid:     true,
	}
	if !keep {
		runtime.LockOSThread() // The signal comes when the starting thread ends.
		defer runtime.UnlockOSThread()
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("namespaces of network, mounts and processes are needed, so run it as root: %w", err)
	}
	_, _ = reportEnd.Close(), saidEnd.Close()
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		_, _ = io.Copy(os.Stdout, said)
	}()
	if err := writeState(dir, cmd.Process.Pid); err != nil {
		_ = cmd.Process.Kill()
		return 0, err
	}
	var end struct{ Code int }
	if keep && json.NewDecoder(report).Decode(&end) == nil {
		<-heard
		return end.Code, cmd.Process.Release()
	}
	err = cmd.Wait()
	<-heard
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() >= 0 {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// Report tells the program outside that this one has done its work with the given exit code, so
// that the outside ends and leaves the sandbox running. Nothing that is printed afterwards is seen.
func Report(code int) error {
	report := os.NewFile(reportFD, "report")
	defer func() { _ = report.Close() }()
	return errors.Join(mute(), json.NewEncoder(report).Encode(struct{ Code int }{code}))
}

// mute closes the way of this process's output to the program outside.
func mute() error {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = null.Close() }()
	return errors.Join(unix.Dup3(int(null.Fd()), 1, 0), unix.Dup3(int(null.Fd()), 2, 0))
}

// initSandbox makes the sandbox's mounts, starts the program in it and reaps every process that
// ends until the program does. It returns the program's exit code.
func initSandbox() (int, error) {
	if err := mountSandbox(); err != nil {
		return 0, err
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	if err := os.Setenv(roleVariable, "inside"); err != nil {
		return 0, err
	}
	pid, err := syscall.ForkExec("/proc/self/exe", os.Args, &syscall.ProcAttr{ //nolint:gosec // itself
		Env:   os.Environ(),
		Files: []uintptr{0, 1, 2, reportFD},
	})
	if err != nil {
		return 0, err
	}
	if err := errors.Join(syscall.Close(reportFD), mute()); err != nil {
		return 0, err
	}
	go func() {
		for s := range signals {
			_ = syscall.Kill(pid, s.(syscall.Signal))
		}
	}()
	for {
		var status syscall.WaitStatus
		ended, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 0, err
		case ended == pid && status.Exited():
			return status.ExitStatus(), nil
		case ended == pid:
			return 128 + int(status.Signal()), nil
		}
	}
}

// mountSandbox hides the mounts of this process from the machine, and gives it the folders where
// Kubernetes writes under fixed names: empty at /run, writable copies of /var/lib and /var/log.
func mountSandbox() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	for _, folder := range []string{"/var/lib", "/var/log", "/opt"} {
		upper := filepath.Join("/run/copies", folder)
		work := upper + ".work"
		if err := errors.Join(os.MkdirAll(upper, 0o750), os.MkdirAll(work, 0o750)); err != nil {
			return err
		}
		options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", folder, upper, work)
		if err := unix.Mount("overlay", folder, "overlay", 0, options); err != nil {
			return fmt.Errorf("mount a copy of %s: %w", folder, err)
		}
	}
	return nil
}

// enterNetwork gives the sandbox's network its addresses and lets the programs in it resolve the
// cluster's names.
func enterNetwork(ctx context.Context, dir string) error {
	unix.CloseOnExec(reportFD)
	for _, words := range []string{
		"link set lo up",
		"addr replace " + NodeIP + "/32 dev lo",
		"route replace default dev lo", // The API server and the kubelet ask for the default route's address.
	} {
		if out, err := exec.CommandContext(ctx, "ip", strings.Fields(words)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", words, err, out)
		}
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o600); err != nil {
		return err
	}
	resolv := filepath.Join(dir, "resolv.conf")
	if err := os.WriteFile(resolv, []byte("nameserver "+NodeIP+"\noptions ndots:1\n"), 0o600); err != nil {
		return err
	}
	target, err := filepath.EvalSymlinks("/etc/resolv.conf")
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	return unix.Mount(resolv, target, "", unix.MS_BIND, "")
}

// tail returns the last bytes of a file, from the beginning of a line.
func tail(path string, limit int64) string {
	file, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = file.Close() }()
	if info, err := file.Stat(); err == nil && info.Size() > limit {
		_, _ = file.Seek(-limit, io.SeekEnd)
	}
	text, _ := io.ReadAll(file)
	if int64(len(text)) == limit {
		_, after, _ := strings.Cut(string(text), "\n")
		return after
	}
	return string(text)
}
