//go:build linux

// Command k8s brings up a real Kubernetes on this machine, without internet, and checks the chart on it.
//
//	k8s test [-run REGEXP] [-quick] [-keep]   checks, and ends with "N passed, N failed"
//	k8s up [-node]                            a cluster to try things on
//	k8s exec COMMAND...                       runs a command inside it, kubectl for instance
//	k8s down                                  ends it and removes what it left
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"github.com/triptych-serving/triptych/tools/k8s/cluster"
	"github.com/triptych-serving/triptych/tools/k8s/suite"
	"github.com/triptych-serving/triptych/tools/k8s/tool"
)

func main() {
	cluster.Init()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code, err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "k8s:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// run does a command and returns the exit code.
func run(ctx context.Context, args []string) (int, error) {
	cache, err := tool.Cache()
	if err != nil {
		return 1, err
	}
	dir := filepath.Join(cache, "run")
	if len(args) == 0 {
		return 2, errors.New("expected a command: test, up, exec or down")
	}
	switch args[0] {
	case "test":
		return test(ctx, dir, args[1:])
	case "up":
		return up(ctx, dir, args[1:])
	case "exec":
		return enter(dir, args[1:])
	case "down":
		return down(dir)
	default:
		return 2, fmt.Errorf("no command %q: there are test, up, exec and down", args[0])
	}
}

// test runs checks.
func test(ctx context.Context, dir string, args []string) (int, error) {
	flags := flag.NewFlagSet("test", flag.ExitOnError)
	only := flags.String("run", "", "run the checks whose name matches this regular expression, and those before them that they need")
	list := flags.Bool("list", false, "list the checks")
	quick := flags.Bool("quick", false, "keep loads up for seconds instead of minutes")
	chart := flags.String("chart", "", "folder of the chart (default: charts/triptych)")
	keep := flags.Bool("keep", false, "leave the cluster running: look around by k8s exec, and end it by k8s down")
	_ = flags.Parse(args)
	if *list {
		fmt.Println(strings.Join(suite.Names(), "\n"))
		return 0, nil
	}
	filter, err := regexp.Compile(*only)
	if err != nil {
		return 2, err
	}
	options := suite.Options{Dir: dir, Only: filter, Quick: *quick, Keep: *keep, Log: os.Stdout}
	if !cluster.Inside() {
		needs := suite.Needs(filter)
		if len(needs) == 0 {
			return 2, fmt.Errorf("no check is called like %q: k8s test -list", *only)
		}
		return sandbox(ctx, dir, *keep, append(needs, "control plane"))
	}
	box, err := prepared(dir)
	if err != nil {
		return 1, err
	}
	options.Tools = box
	if options.Root, err = tool.Root(); err != nil {
		return 1, err
	}
	options.Chart = cmp.Or(*chart, filepath.Join(options.Root, "charts", "triptych"))
	options.Triptych, options.Images, options.Version = box.Triptych, box.Images, imageVersion
	passed, failed, err := suite.Run(ctx, options)
	fmt.Printf("\n%d passed, %d failed\n", passed, failed)
	code := 0
	if failed > 0 || err != nil {
		code = 1
	}
	return code, errors.Join(err, stay(ctx, *keep, code))
}

// up brings up a cluster to try things on.
func up(ctx context.Context, dir string, args []string) (int, error) {
	flags := flag.NewFlagSet("up", flag.ExitOnError)
	node := flags.Bool("node", false, "with a real node and the image instead of fake nodes")
	_ = flags.Parse(args)
	groups := []string{"control plane", "fake nodes"}
	if *node {
		groups = []string{"control plane", "real node"}
	}
	if !cluster.Inside() {
		return sandbox(ctx, dir, true, groups)
	}
	box, err := prepared(dir)
	if err != nil {
		return 1, err
	}
	if err := suite.Up(ctx, suite.Options{Dir: dir, Tools: box, Images: box.Images, Log: os.Stdout}, *node); err != nil {
		return 1, err
	}
	fmt.Println("go run ./tools/k8s exec kubectl get pods -A; go run ./tools/k8s down")
	return 0, stay(ctx, true, 0)
}

// stay keeps the sandbox until it is ended, after telling the program outside how things went.
func stay(ctx context.Context, keep bool, code int) error {
	if !keep || ctx.Err() != nil {
		return nil
	}
	if err := cluster.Report(code); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// sandbox builds what is missing, runs this program inside the sandbox, and cleans up after it unless
// it is kept.
func sandbox(ctx context.Context, dir string, keep bool, groups []string) (int, error) {
	if err := cluster.CheckMachine(); err != nil {
		return 1, err
	}
	lock, err := cluster.Lock(dir)
	if err != nil {
		return 1, err
	}
	defer func() { _ = lock.Close() }()
	if state, running := cluster.Running(dir); running {
		return 1, fmt.Errorf("a cluster is running already, as process %d: k8s down ends it", state.PID)
	}
	if _, err := cluster.Down(dir); err != nil { // what a crash left
		return 1, err
	}
	box, err := prepare(ctx, dir, groups...)
	if err != nil {
		return 1, err
	}
	if err := box.save(dir); err != nil {
		return 1, err
	}
	code, err := cluster.Sandbox(ctx, dir, keep)
	if _, running := cluster.Running(dir); running {
		return code, err
	}
	_, downErr := cluster.Down(dir)
	return code, errors.Join(err, downErr)
}

func down(dir string) (int, error) {
	lock, err := cluster.Lock(dir)
	if err != nil {
		return 1, err
	}
	defer func() { _ = lock.Close() }()
	running, err := cluster.Down(dir)
	if err == nil && !running {
		fmt.Println("no cluster was running")
	}
	return 0, err
}

// enter becomes a command inside the sandbox, with the administrator's credentials.
func enter(dir string, command []string) (int, error) {
	state, running := cluster.Running(dir)
	if !running {
		return 1, errors.New("no cluster is running: k8s up")
	}
	box, err := prepared(dir)
	if err != nil {
		return 1, err
	}
	nsenter, err := exec.LookPath("nsenter")
	if err != nil {
		return 1, err
	}
	if err := os.Setenv("PATH", box.Bin+string(os.PathListSeparator)+os.Getenv("PATH")); err != nil {
		return 1, err
	}
	if err := os.Setenv("KUBECONFIG", filepath.Join(dir, "admin.conf")); err != nil {
		return 1, err
	}
	here, err := os.Getwd()
	if err != nil {
		return 1, err
	}
	args := append([]string{"nsenter", "--target=" + strconv.Itoa(state.PID), "--net", "--mount", "--pid", "--ipc", "--wdns=" + here, "--"}, command...)
	return 1, syscall.Exec(nsenter, args, os.Environ()) //nolint:gosec // it runs what it is told to
}
