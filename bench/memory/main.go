// Command memory draws with SDXL at its true shapes under memory budgets, on a real `triptych up`: what `triptych plan` tells before, what
// the ledger and the processes take, and what is refused where nothing may be evicted. Run it from the root of the repository, as
// `make bench-memory` does; `go run ./bench sdxl` writes the model.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"time"

	"github.com/triptych-serving/triptych/bench/randommodel"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "memory:", err)
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	model, cache, report, run string
	side, small, steps        int
	every                     time.Duration

	program  string
	upscaler string // folder
}

func run(ctx context.Context) error {
	var o options
	flag.StringVar(&o.cache, "cache", filepath.Join("bench", ".cache"), "folder for what is made")
	flag.StringVar(&o.model, "model", "", "folder of SDXL (default: sdxl in the cache)")
	flag.StringVar(&o.run, "run", "", "only the scenarios whose name matches this regular expression")
	flag.IntVar(&o.side, "side", 1024, "width and height of the pictures, which are then enlarged")
	flag.IntVar(&o.small, "int8-side", 512, "width and height of those with int8 weights")
	flag.IntVar(&o.steps, "steps", 1, "steps of a picture")
	flag.DurationVar(&o.every, "every", 50*time.Millisecond, "time between two looks at the processes")
	flag.StringVar(&o.report, "report", "", "also write JSON to this file")
	flag.Parse()
	if o.model == "" {
		o.model = filepath.Join(o.cache, "sdxl")
	}
	if !randommodel.Complete(o.model) {
		return fmt.Errorf("there is no model in %s: go run ./bench sdxl writes one, of 6.9 GB", o.model)
	}
	wanted, err := regexp.Compile(o.run)
	if err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	o.program, o.upscaler = filepath.Join(o.cache, "triptych"), filepath.Join(o.cache, "esrgan_x2")
	build := exec.CommandContext(ctx, "go", "build", "-o", o.program, "./cmd/triptych")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build ./cmd/triptych: %w", err)
	}
	if !randommodel.Complete(o.upscaler) {
		if err := randommodel.WriteESRGANx2(o.upscaler); err != nil {
			return err
		}
	}
	r := report{Date: time.Now().Format(time.RFC3339), Steps: o.steps}
	for _, s := range o.scenarios() {
		if !wanted.MatchString(s.name) {
			continue
		}
		row, err := o.measure(ctx, s)
		r.Rows = append(r.Rows, row)
		if o.report != "" { // after every row: the next may take long
			err = errors.Join(err, r.write(o.report))
		}
		if err = errors.Join(err, r.check(s, row)); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		fmt.Fprintf(os.Stderr, "%s %s: %.0f s\n", time.Now().Format(time.TimeOnly), s.name, row.Seconds)
	}
	fmt.Print(r.markdown())
	return nil
}
