package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/internal/baseline"
	"github.com/triptych-serving/triptych/orchestrator/residency/simulate"
)

// policy is a policy's result, all of whose jobs are done.
func policy(name string, reload, oracle float64) baseline.Result {
	return baseline.Result{Result: simulate.Result{Policy: name, Done: 3, ReloadSeconds: reload}, OracleSeconds: oracle}
}

func TestCounts(t *testing.T) {
	refused := policy(baseline.Ours, 0, 0)
	refused.Done = 0
	half := policy("half", 1, 1)
	half.Done = 1
	for name, c := range map[string]struct {
		row  row
		want counts
	}{
		"at the oracle, half of LRU": {row{Results: []baseline.Result{policy(baseline.Ours, 11.5, 10), policy(baseline.LRU, 23, 20)}}, counts{rows: 1, near: 1, fewer: 1, fewerAtLeast: 1}},
		"beyond, and so is the best": {
			row{Online: &baseline.Online{ReloadSeconds: 12, OracleSeconds: 10}, Results: []baseline.Result{policy(baseline.Ours, 12, 10), policy(baseline.LRU, 19, 20)}},
			counts{rows: 1, unforeseen: 1},
		},
		"beyond, and the best is not": {
			row{Online: &baseline.Online{ReloadSeconds: 11, OracleSeconds: 10}, Results: []baseline.Result{policy(baseline.Ours, 12, 10), policy(baseline.LRU, 19, 20)}},
			counts{rows: 1},
		},
		"half of LRU in another order":           {row{Results: []baseline.Result{policy(baseline.Ours, 12, 12), policy(baseline.LRU, 20, 20), policy("other", 20, 10)}}, counts{rows: 1, near: 1, fewerAtLeast: 1}},
		"another order that served fewer":        {row{Results: []baseline.Result{policy(baseline.Ours, 12, 12), policy(baseline.LRU, 20, 20), half}}, counts{rows: 1, near: 1}},
		"nothing fits, which says nothing of us": {row{Results: []baseline.Result{refused, policy(baseline.LRU, 5, 5)}}, counts{}},
	} {
		var got counts
		if got.add(c.row.reached(), c.row.Online); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

// TestReport: the committed report gives what docs/residency.md tells of it.
func TestReport(t *testing.T) {
	const report = "../results/residency.json"
	text, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := read(text)
	if err != nil {
		t.Fatal(err)
	}
	docs, err := os.ReadFile("../../docs/residency.md")
	if err != nil {
		t.Fatal(err)
	}
	var c counts
	for _, r := range rows {
		c.add(r.reached(), r.Online)
	}
	for _, want := range []string{
		fmt.Sprintf("Of the %d rows", c.rows),
		fmt.Sprintf("| at most %v of the optimum | %d | %d: ", mostToOracle, c.near, c.rows-c.near-c.unforeseen),
		fmt.Sprintf("| %d: ONLINE TO ORACLE is ", c.unforeseen),
		fmt.Sprintf("| at most half of LRU's loads | %d | %d: ", c.fewer, c.fewerAtLeast-c.fewer),
		fmt.Sprintf("| %d: LRU TO ORACLE is below %d |", c.rows-c.fewerAtLeast, leastToLRU),
	} {
		if !strings.Contains(string(docs), want) {
			t.Errorf("docs/residency.md does not say %q", want)
		}
	}
	var out strings.Builder
	if err := run([]string{report}, &out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if got, want := len(lines), len(rows)+4; got != want || !strings.Contains(lines[got-2], fmt.Sprintf("in %d of %d rows; of the others, %d", c.near, c.rows, c.unforeseen)) ||
		!strings.Contains(lines[got-1], fmt.Sprintf("in %d of %d rows; the oracle comes to it in %d", c.fewer, c.rows, c.fewerAtLeast)) {
		t.Errorf("%d lines, want %d:\n%s", got, want, out.String())
	}
}

func TestNoReport(t *testing.T) {
	for says, text := range map[string]string{
		"invalid character": "x", "at least one trace": "[]", "at least one network": "{}", "--warm-memory": `[{"trace": "t", "budget": "60%", "warm_bytes": 1}]`,
	} {
		path := filepath.Join(t.TempDir(), "report.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := run([]string{path}, nil); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want an error that says %q", text, err, says)
		}
	}
	if err := run(nil, nil); err == nil {
		t.Error("no report is given, and nothing is wrong")
	}
}

// TestNetworks: every goal of a network is told with what was measured, and only those.
func TestNetworks(t *testing.T) {
	const report = `{"networks": [
		{"name": "sdxl text encoder 2, 2 prompts", "peers": [{"name": "eager f32, its default", "ratio": 0.91, "memory_ratio": 2}, {"name": "eager bf16", "ratio": 9}]},
		{"name": "sdxl U-Net step 64x64, batch 2", "peers": [{"name": "eager f32, its default", "ratio": 9}]},
		{"name": "sdxl U-Net step 128x128, batch 2", "peers": [{"name": "eager f32", "ratio": 0.6, "memory_ratio": 0.36}]},
		{"name": "sdxl U-Net step 128x128, batch 2, LoRA of rank 32", "peers": [{"name": "triptych, no LoRA", "ratio": 1.04, "memory_ratio": 1.1}]},
		{"name": "sdxl VAE decode to 1024x1024", "peers": [{"name": "eager f32, its default", "problem": "it broke"}]}
	]}`
	path := filepath.Join(t.TempDir(), "report.json")
	if err := os.WriteFile(path, []byte(report), 0o600); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := run([]string{path}, &out); err != nil {
		t.Fatal(err)
	}
	want := [][]string{
		{"sdxl text encoder 2, 2 prompts", "eager f32, its default", "0.910 (0.9), NOT REACHED", "-"},
		{"sdxl U-Net step 128x128, batch 2", "eager f32", "0.600 (0.65)", "0.360 (0.35), NOT REACHED"},
		{"sdxl U-Net step 128x128, batch 2, LoRA of rank 32", "triptych, no LoRA", "1.040 (1.05)", "-"},
		{"sdxl VAE decode to 1024x1024", "eager f32, its default", "not measured (0.5)", "not measured (0.1)"},
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")[1:]
	if len(lines) != len(want) {
		t.Fatalf("%d lines, want %d:\n%s", len(lines), len(want), out.String())
	}
	for i, line := range lines {
		for _, cell := range want[i] {
			if !strings.Contains(line, "  "+cell) && !strings.HasPrefix(line, cell+"  ") {
				t.Errorf("%q lacks %q", line, cell)
			}
		}
	}
}
