package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/triptych-serving/triptych/bench/kernels"
	"github.com/triptych-serving/triptych/bench/limits"
	"github.com/triptych-serving/triptych/bench/networks"
	"github.com/triptych-serving/triptych/bench/stat"
)

func TestParse(t *testing.T) {
	o, err := parse(strings.Fields("-parts kernels,load -models starter,sd15 -run conv -threads 3 -reps 4 -kernel-time 2s -peers eager,ort"))
	if err != nil {
		t.Fatal(err)
	}
	if len(o.parts) != 2 || len(o.models) != 2 || !o.run.MatchString("a conv") || o.threads != 3 || o.reps != 4 || o.rowTime != 2*time.Second || len(o.peers) != 2 {
		t.Errorf("%+v", o)
	}
	if o.wants("load") {
		t.Error("-run does not filter")
	}
	for _, args := range []string{"-parts kernel", "-models sd21", "-run (", "-threads 0", "-reps 0", "surplus", "-unknown"} {
		if _, err := parse(strings.Fields(args)); err == nil {
			t.Errorf("%s was taken", args)
		}
	}
}

func TestCommands(t *testing.T) {
	for _, args := range []string{"table", "table no-such-file.json", "shapes", "serve MODEL", "serve MODEL unet none", "sd15 a b", "sd15 -only nothing DIR", "sdxl -only nothing DIR"} {
		t.Chdir(t.TempDir())
		if err := run(t.Context(), strings.Fields(args)); err == nil {
			t.Errorf("bench %s: no error", args)
		}
	}
	if err := run(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "root of the repository") {
		t.Errorf("outside of the repository: %v", err)
	}
}

// fixed is a report with a row of each kind.
func fixed() *report {
	ms := func(v float64) stat.Summary { return stat.Summary{Median: v, Min: v, Max: v, Reps: 3} }
	conv := kernels.Row{Kind: "conv 3x3 s1", Size: "2x64x64x320 -> 320", Stored: "f32", Threads: 1, Ms: ms(400), GFLOPS: 37.7, PeakShare: 0.85}
	two, f16 := conv, conv
	two.Threads, two.Ms, two.GFLOPS, two.PeakShare = 2, ms(210), 71.9, 0.82
	f16.Threads, f16.Stored, f16.Slowdown = 2, "f16", 1.021
	return &report{
		Date: "2026-01-02T03:04:05Z", Threads: 2, Versions: map[string]string{"go": "go1"}, Environment: map[string]string{"GOGC": "off"},
		Machine: limits.Machine{CPU: "a CPU", Cores: 2, MemoryBytes: 24 << 30, LoadBefore: "0.1 0.2 0.3"},
		Limits:  limits.Limits{Threads: 2, FMA: limits.Rate{One: 44, All: 87.6}, Levels: []limits.Level{{Name: "L1d", Read: limits.Rate{One: 90, All: 180}}}, DiskRead: 1.5, DiskBytes: 2e9},
		Kernels: []kernels.Row{
			conv, two, f16,
			{Kind: "layer_norm", Size: "2x4096x320", Threads: 1, Ms: ms(2), GBs: 10.5, Level: "DRAM", CopyShare: 0.9},
		},
		Networks: []networks.Row{{
			Name: "sd15 VAE decode to 512x512", Ours: networks.Side{Name: "triptych", Ms: ms(9000), PeakRSS: 600 << 20, PeakLedger: 500 << 20, LoadSeconds: 0.1}, PeakShare: 0.9,
			Peers: []networks.Side{
				{Name: "eager", Ms: ms(23000), Ratio: 0.391, PeakRSS: 2200 << 20, MemoryRatio: 0.273, Check: &networks.Check{Relative: 2e-6}, Versions: map[string]string{"torch": "2"}, Notes: map[string]any{"memory_format": "channels_last"}},
				{Name: networks.ServicesName, Ms: ms(9180), Ratio: 9000.0 / 9180},
				{Name: networks.OneThreadName, Ms: ms(17640), Ratio: 9000.0 / 17640},
				{Name: networks.WithoutLoRAName, Ms: ms(8800), Ratio: 9000.0 / 8800},
				{Name: "ov", Problem: "no module | named\nopenvino"},
			},
		}},
		Loads: []networks.LoadRow{{Name: "starter unet", Bytes: 17e6, WarmMs: ms(5), WarmGB: 3.4, MemcpyShare: 0.31}},
		Start: &networks.StartRow{Model: "starter", FirstStep: ms(480), Image: ms(1900)},
	}
}

func TestMarkdown(t *testing.T) {
	got := fixed().markdown()
	for _, want := range []string{
		"a CPU, 2 cores, 24 GiB", "Load average 0.1 0.2 0.3 before, unknown after", "Set: GOGC off.",
		"| multiply-adds between registers | GFLOP/s | 44.0 | 87.6 |", "| L1d read | GB/s | 90.0 | 180 |", "| disk read, 2000 MB | GB/s | 1.50 | - |",
		"| conv 3x3 s1 | 2x64x64x320 -> 320 | 400 | 37.7 | 85 % | 210 | 71.9 | 82 % | +2.1 % | - | - |",
		"| layer_norm | 2x4096x320 | 2.00 | 10.5 | 90 % | - | - | - | DRAM |",
		"| sd15 VAE decode to 512x512 | **triptych**, 90 % of peak | 9000 | 9000 | 9000 | 0 % | 3 |  | 600 MiB, ledger 500 |  | 0.10 s |  |",
		"|  | eager | 23000 | 23000 | 23000 | 0 % | 3 | 0.391 | 2200 MiB | 0.273 | - | 2.0e-06 |",
		"| triptych up, splitting costs 2.0 % | 9180 |", "| triptych, 1 thread, 1.96 times as long | 17640 |", "| triptych, no LoRA, it costs 2.3 % | 8800 |", "|  | ov | none: no module / named openvino |", "- eager: memory_format channels_last\n", "- eager: torch 2\n",
		"| starter unet | 17 MB | - | - | 0 % | 5.00 | 3.40 | 31 % |",
		"480 ms to the first denoise step (median of 3, 480 to 480), 1900 ms to its end",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the tables lack %q", want)
		}
	}
	columns := 0
	for i, line := range strings.Split(got, "\n") {
		switch n := strings.Count(line, "|"); {
		case n == 0:
			columns = 0
		case columns == 0:
			columns = n
		case n != columns:
			t.Errorf("line %d has %d bars, its table %d: %s", i+1, n, columns, line)
		}
	}
	if t.Failed() {
		t.Log(got)
	}
}

// TestReportReadsBack: what is written gives the same tables.
func TestReportReadsBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results", "x.json")
	if err := fixed().write(path); err != nil {
		t.Fatal(err)
	}
	stdout := os.Stdout
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	os.Stdout = w
	err = run(t.Context(), []string{"table", path})
	os.Stdout = stdout
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 1<<16)
	n, _ := r.Read(got)
	if err != nil || string(got[:n]) != fixed().markdown() {
		t.Errorf("%v: %s", err, got[:n])
	}
}
