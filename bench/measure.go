package main

import (
	"bytes"
	"context"
	"fmt"
	"image/png"
	"math"
	"time"

	"github.com/triptych-serving/triptych/engine/kernel"
)

// The work, that of run 0 of testdata/golden/starter: a 128x128 image by guided DDIM.
const (
	prompt         = "fox on a blue background"
	negativePrompt = ""
	guidanceScale  = 4
	steps          = 20
	latentSide     = 16
	seed           = 42
)

// operation is a piece of work that is timed without a break.
type operation string

// The operations, in the order of a generation.
const (
	encode  operation = "encode"  // the two prompts to states
	denoise operation = "denoise" // states and a seed to a latent
	decode  operation = "decode"  // a latent to a PNG file
	whole   operation = "image"   // all of it, prompts to a PNG file
)

// task is an operation and what it starts from. Both sides get the same tensors, so that each operation is
// checked by itself.
type task struct {
	op     operation
	values []float32
	shape  []int
}

// outcome is what an operation took, by row of the table, and what it made: values or a PNG file.
type outcome struct {
	seconds map[string]float64
	values  []float32
	shape   []int
	file    []byte
}

// side does the work: this process or the peer.
type side interface {
	do(ctx context.Context, t task) (outcome, error)
}

// settle is the pause before an operation, in which the threads of the other side go to sleep.
const settle = 50 * time.Millisecond

// measure fills in the rows of the report: each repetition does each operation on both sides, and every other one
// begins with them. A failing peer is left out from then on, and why is returned apart from our own error.
func measure(ctx context.Context, o options, us, them side, problem error, report *report) (peerProblem, err error) {
	if problem != nil {
		them = nil
	}
	for i := range o.warmups + o.reps {
		report.peak(i >= o.warmups)
		next := task{}
		for _, op := range []operation{encode, denoise, decode, whole} {
			next.op = op
			ours, theirs, p, err := byTurns(ctx, us, them, next, i%2 == 1)
			if err != nil {
				return p, err
			}
			if p == nil && theirs != nil {
				var c check
				if c, p = compare(ours, *theirs); p == nil && i >= o.warmups {
					report.addPeer(*theirs, c)
				}
			}
			if p != nil {
				them, problem = nil, fmt.Errorf("left out after %d of %d repetitions: %w", i, o.warmups+o.reps, p)
			}
			if i >= o.warmups {
				report.add(ours)
			}
			next.values, next.shape = ours.values, ours.shape
		}
	}
	return problem, nil
}

// byTurns does one task on both sides. theirs is nil without a peer.
func byTurns(ctx context.Context, us, them side, t task, theyBegin bool) (ours outcome, theirs *outcome, problem, err error) {
	peer := func() {
		time.Sleep(settle)
		got, err := them.do(ctx, t)
		if err != nil {
			problem = err
			return
		}
		theirs = &got
	}
	if them != nil && theyBegin {
		peer()
	}
	time.Sleep(settle)
	if ours, err = us.do(ctx, t); err != nil {
		return ours, nil, problem, fmt.Errorf("%s: %w", t.op, err)
	}
	if them != nil && !theyBegin {
		peer()
	}
	return ours, theirs, problem, ctx.Err()
}

// check is how far apart the results of both sides are.
type check struct {
	// Relative is the largest difference, of tensors relative to their largest value, of images to 255.
	Relative float64 `json:"max_relative_difference"`
	// Unequal is the share of values of an image that differ at all.
	Unequal float64 `json:"unequal_share,omitempty"`
}

// compare checks our outcome against theirs.
func compare(ours, theirs outcome) (check, error) {
	if ours.file == nil {
		return compareValues(ours.values, theirs.values)
	}
	a, err := pixels(ours.file)
	if err != nil {
		return check{}, err
	}
	b, err := pixels(theirs.file)
	if err != nil {
		return check{}, err
	}
	if len(a) != len(b) {
		return check{}, fmt.Errorf("images of %d and %d values", len(a), len(b))
	}
	var largest, unequal float64
	for i := range a {
		if a[i] != b[i] {
			largest, unequal = max(largest, math.Abs(float64(a[i])-float64(b[i]))), unequal+1
		}
	}
	return check{Relative: largest / 255, Unequal: unequal / float64(len(a))}, nil
}

func compareValues(ours, theirs []float32) (check, error) {
	if len(ours) != len(theirs) || len(ours) == 0 {
		return check{}, fmt.Errorf("%d and %d values", len(ours), len(theirs))
	}
	var difference, largest float64
	for i, v := range theirs {
		difference, largest = max(difference, math.Abs(float64(ours[i])-float64(v))), max(largest, math.Abs(float64(v)))
	}
	return check{Relative: difference / largest}, nil
}

// pixels are the colours of a PNG file.
func pixels(file []byte) ([]uint8, error) {
	img, err := png.Decode(bytes.NewReader(file))
	if err != nil {
		return nil, err
	}
	b := img.Bounds()
	out := make([]uint8, 0, 3*b.Dx()*b.Dy())
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			r, g, bl, _ := img.At(x, y).RGBA()
			out = append(out, uint8(r>>8), uint8(g>>8), uint8(bl>>8))
		}
	}
	return out, nil
}

// peakRounds is about 10 ms of multiply-adds on one core.
const peakRounds = 2_000_000

// measurePeak is the multiply-add peak of one core now, in GFLOP/s. It is cut up, since assembly delays collections.
func measurePeak() float64 {
	const cuts = 200
	start := time.Now()
	for range cuts {
		kernel.FMAPeak(peakRounds / cuts)
	}
	return peakRounds * kernel.PeakFlops / time.Since(start).Seconds() / 1e9
}
