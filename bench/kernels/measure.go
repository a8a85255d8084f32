package kernels

import (
	"context"
	"fmt"
	"regexp"
	"runtime"
	"time"

	"github.com/triptych-serving/triptych/bench/limits"
	"github.com/triptych-serving/triptych/bench/stat"
	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/tensor"
)

// Options say what is timed and how long.
type Options struct {
	Threads int            // of the rows that use all of them; others use one
	Run     *regexp.Regexp // of Row.Name; nil takes every row
	All     bool           // every shape of the table, not the main ones only
	// Time bounds the repetitions of a row; the first, which does not count, and one that counts are always made. Rows
	// that would take more than Longest at the machine's peak are left out.
	Time, Longest time.Duration
}

// Row is one shape with one kind of stored weights on so many threads.
type Row struct {
	Name    string `json:"name"`
	Kind    string `json:"kind"`
	Size    string `json:"size"`
	Shape   Shape  `json:"shape"`
	Stored  string `json:"stored,omitempty"` // type of the weights
	Threads int    `json:"threads"`
	// Ms are the times of the repetitions in milliseconds. The rates below are those of the fastest.
	Ms     stat.Summary `json:"ms"`
	GFLOPS float64      `json:"gflops,omitempty"`
	// PeakShare is GFLOPS to the FMA peak of the same number of threads.
	PeakShare float64 `json:"peak_share,omitempty"`
	GBs       float64 `json:"gb_s,omitempty"`
	// Level is where the operands fit, CopyShare GBs to the bandwidth of a copy there.
	Level     string  `json:"level,omitempty"`
	CopyShare float64 `json:"copy_share,omitempty"`
	// Slowdown is the time to that of the same row with f32 weights.
	Slowdown float64 `json:"slowdown_to_f32,omitempty"`
}

// storage is a way to keep weights: the type in the file, and that on the device if it is another one.
type storage struct {
	name            string
	dtype, resident tensor.DType
}

// stored lists the ways that are timed, f32 first: the others are compared with it.
func stored() []storage {
	return []storage{{"f32", tensor.F32, tensor.Invalid}, {"f16", tensor.F16, tensor.Invalid}, {"bf16", tensor.BF16, tensor.Invalid}, {"int8", tensor.F16, tensor.I8}}
}

// Measure times the rows one after another. Those of one shape that differ in stored weights take turns. Before each
// shape the FMA peak of l is measured again, and the shares are of the best.
func Measure(ctx context.Context, o Options, l *limits.Limits, progress func(Row)) ([]Row, error) {
	list, err := List()
	if err != nil {
		return nil, err
	}
	list = append(list, softmaxEntries(list)...)
	var rows []Row
	for _, threads := range threadCounts(o.Threads) {
		dev, err := cpu.New(cpu.Options{Threads: threads})
		if err != nil {
			return nil, err
		}
		for _, e := range list {
			group := plan(o, *l, e, threads)
			if len(group) == 0 {
				continue
			}
			l.FMA.Raise(threads, l.Threads)
			if err := timeGroup(ctx, o, dev, group); err != nil {
				return rows, fmt.Errorf("%s: %w", group[0].row.Name, err)
			}
			for _, g := range group {
				g.row.rate(*l)
				rows = append(rows, g.row)
				progress(g.row)
			}
		}
		if err := dev.Close(); err != nil {
			return rows, err
		}
	}
	finish(rows, *l)
	return rows, nil
}

func threadCounts(all int) []int {
	if all == 1 {
		return []int{1}
	}
	return []int{1, all}
}

// measured is a row and how its weights are stored.
type measured struct {
	row     Row
	storage storage
	samples []float64
}

// plan makes the rows of a shape that are wanted. On one thread weights are f32 only: how they are stored is compared
// on all threads.
func plan(o Options, l limits.Limits, e Entry, threads int) []*measured {
	if !e.Main && !o.All {
		return nil
	}
	if threads > 0 && e.Flops()/(l.FMA.For(threads)*1e9) > o.Longest.Seconds() && !o.All {
		return nil
	}
	var out []*measured
	for i, s := range stored() {
		if i > 0 && (!e.Weighted() || (threads == 1 && o.Threads > 1)) {
			break
		}
		r := Row{Kind: e.Kind(), Size: e.Size(), Shape: e.Shape, Threads: threads}
		r.Name = fmt.Sprintf("%s %s t%d", r.Kind, r.Size, threads)
		if e.Weighted() {
			r.Stored = s.name
			r.Name += " " + s.name
		}
		if o.Run == nil || o.Run.MatchString(r.Name) {
			out = append(out, &measured{row: r, storage: s})
		}
	}
	return out
}

// timeGroup fills in the samples of a group, by turns.
func timeGroup(ctx context.Context, o Options, dev *cpu.Device, group []*measured) error {
	if group[0].row.Shape.Op == softmax {
		return timeSoftmax(ctx, o, group[0])
	}
	var runs []device.Run
	for _, g := range group {
		run, free, err := open(ctx, dev, g.row.Shape, g.storage)
		if err != nil {
			return err
		}
		defer free()
		runs = append(runs, run)
	}
	return repeat(ctx, o, group, func(i int) error { return runs[i].Execute(ctx) })
}

// repeat times work on each of a group by turns: once without counting, then until the time is over.
func repeat(ctx context.Context, o Options, group []*measured, work func(i int) error) error {
	runtime.GC()
	budget := time.Duration(len(group)) * o.Time
	var start time.Time
	for rep := 0; rep < 2 || time.Since(start) < budget; rep++ {
		for i, g := range group {
			from := time.Now()
			if err := work(i); err != nil {
				return err
			}
			if rep > 0 {
				g.samples = append(g.samples, 1e3*time.Since(from).Seconds())
			}
		}
		if rep == 0 {
			start = time.Now()
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	for _, g := range group {
		g.row.Ms = stat.Summarize(g.samples)
	}
	return nil
}

// open makes a shape ready to execute, with weights and inputs of random values.
func open(ctx context.Context, dev device.Device, s Shape, kept storage) (device.Run, func(), error) {
	tape, err := s.tape(kept)
	if err != nil {
		return nil, nil, err
	}
	w, err := dev.Load(ctx, tape.Manifest(), device.LoadPlan{}, values{tape.Manifest()}, nil)
	if err != nil {
		return nil, nil, err
	}
	run, err := dev.NewRun(tape, w, device.RunOptions{})
	if err != nil {
		w.Free()
		return nil, nil, err
	}
	free := func() { run.Free(); w.Free() }
	for _, in := range tape.Inputs() {
		v := make([]float32, int(count(in.Array.Shape)))
		fill(v)
		if err := run.Write(in.Name, v); err != nil {
			free()
			return nil, nil, err
		}
	}
	return run, free, nil
}

// rate computes what a time amounts to.
func (r *Row) rate(l limits.Limits) {
	if r.Ms.Min == 0 {
		return
	}
	if f := r.Shape.Flops(); f > 0 {
		r.GFLOPS = f / r.Ms.Min / 1e6
		return
	}
	level := l.At(r.Shape.Bytes())
	r.GBs, r.Level = r.Shape.Bytes()/r.Ms.Min/1e6, level.Name
	if c := level.Copy.For(r.Threads); c > 0 {
		r.CopyShare = r.GBs / c
	}
}

// finish adds what is known only when all rows are there: the best peak and the other rows.
func finish(rows []Row, l limits.Limits) {
	f32 := map[string]float64{}
	key := func(r Row) string { return fmt.Sprint(r.Shape, r.Threads) }
	for i := range rows {
		r := &rows[i]
		if r.GFLOPS > 0 {
			r.PeakShare = r.GFLOPS / l.FMA.For(r.Threads)
		}
		switch base := f32[key(*r)]; {
		case r.Stored == "f32":
			f32[key(*r)] = r.Ms.Min
		case r.Stored != "" && base > 0:
			r.Slowdown = r.Ms.Min / base
		}
	}
}
