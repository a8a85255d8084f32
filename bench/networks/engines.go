package networks

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/triptych-serving/triptych/bench/peer"
)

// Program starts a program of the protocol of bench/peer.
func Program(program []string, env ...string) func(context.Context, Work, int) (side, peer.Hello, error) {
	return func(ctx context.Context, w Work, threads int) (side, peer.Hello, error) {
		c, hello, err := peer.Start(ctx, program, w.Model.Path, w.Network, threads, env...)
		if err != nil {
			return nil, hello, err
		}
		return child{c}, hello, nil
	}
}

// OneThreadName is the side of networks whose ratio tells what more threads are worth.
const OneThreadName = "triptych, 1 thread"

func oneThread(self []string) Engine {
	start := Program(self)
	return Engine{Name: OneThreadName, Start: func(ctx context.Context, w Work, _ int) (side, peer.Hello, error) { return start(ctx, w, 1) }}
}

// peerNeeds is what a process with a framework of Python takes besides weights.
const peerNeeds = 3 << 29

// common is what the peers share, and no peer.
const common = "common"

// PythonPeers are the peers of a folder, each a program NAME.py, for a Python that has their modules. names chooses
// some and their order; nil takes all. cache is where they keep what they export and compile.
func PythonPeers(python, folder, cache string, names []string) ([]Engine, error) {
	if names == nil {
		files, err := filepath.Glob(filepath.Join(folder, "*.py"))
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			if name := strings.TrimSuffix(filepath.Base(f), ".py"); name != common {
				names = append(names, name)
			}
		}
		slices.Sort(names)
	}
	cache, err := filepath.Abs(cache)
	if err != nil {
		return nil, err
	}
	var out []Engine
	for _, name := range names {
		script := filepath.Join(folder, name+".py")
		if _, err := os.Stat(script); err != nil {
			return nil, err
		}
		out = append(out, Engine{Name: name, Needs: peerNeeds, Start: Program([]string{python, script}, "TRIPTYCH_BENCH_CACHE="+cache)})
	}
	return out, nil
}
