package networks

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
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

// The sides of networks that are ours. The ratio of OneThreadName tells what more threads are worth, that of WithoutLoRAName what
// a LoRA costs.
const (
	OneThreadName   = "triptych, 1 thread"
	WithoutLoRAName = "triptych, no LoRA"
)

func oneThread(self []string) Engine {
	start := Program(self)
	return Engine{Name: OneThreadName, Ours: true, Start: func(ctx context.Context, w Work, _ int) (side, peer.Hello, error) { return start(ctx, w, 1) }}
}

func withoutLoRA(self []string) Engine {
	return Engine{Name: WithoutLoRAName, Start: Program(self), Needs: 1 << 30, Ours: true}
}

// withLoRA is our program as a child with a LoRA's file.
func withLoRA(self []string, file string) []string {
	return append(slices.Clone(self), "-lora", file)
}

// peerNeeds is what a process with a framework of Python takes besides weights.
const peerNeeds = 3 << 29

// common is what the peers share, and no peer.
const common = "common"

// PythonPeers are the peers of a folder, each a program NAME.py, for a Python that has their modules, once for float32 and
// once for what else it computes in on this machine. names chooses some and their order, "eager", or "eager:f32" in one type; nil takes all. cache is where
// they keep what they export and compile.
func PythonPeers(ctx context.Context, python, folder, cache string, names []string) ([]Engine, error) {
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
		name, only, _ := strings.Cut(name, ":")
		script := filepath.Join(folder, name+".py")
		if _, err := os.Stat(script); err != nil {
			return nil, err
		}
		engine := func(name string, env ...string) {
			out = append(out, Engine{Name: name, Needs: peerNeeds, Start: Program([]string{python, script}, append(env, "TRIPTYCH_BENCH_CACHE="+cache)...)})
		}
		known := precisions(ctx, python, script)
		if len(known) == 0 && only == "" {
			engine(name) // its row tells why there is no such peer
		}
		if only != "" && !slices.Contains(known, only) {
			return nil, fmt.Errorf("%s in %s: expected one of %v", name, only, known)
		}
		for i, p := range known {
			if only != "" && p != only {
				continue
			}
			label := name + " " + p
			if i == 0 {
				label += ", its default"
			}
			engine(label, "TRIPTYCH_BENCH_PRECISION="+p)
		}
	}
	return out, nil
}

// precisions asks a peer for the types it computes in on this machine, the one it takes unasked first; nil if it cannot
// tell.
func precisions(ctx context.Context, python, script string) (known []string) {
	out, err := exec.CommandContext(ctx, python, script, "precisions").Output()
	if err != nil || json.Unmarshal(out, &known) != nil {
		return nil
	}
	return known
}
