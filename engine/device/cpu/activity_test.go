package cpu_test

import (
	"fmt"
	"testing"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/engine/device/devicetest"
)

// TestActivity: a load and an execution run until they end, whatever the device is given, and every chunk and every op moves;
// who is told of a load's progress does not run.
func TestActivity(t *testing.T) {
	for _, threads := range []int{1, 2} {
		for _, streamed := range []bool{false, true} {
			for _, banded := range []bool{false, true} {
				t.Run(fmt.Sprintf("threads=%d,streamed=%v,banded=%v", threads, streamed, banded), func(t *testing.T) {
					d, n := open(t, cpu.Options{Threads: threads}), devicetest.Block(1, 1, 9)
					last := d.Activity()
					moves := func(when string, running int) {
						t.Helper()
						now := d.Activity()
						if now.Moved == last.Moved || now.Running != running {
							t.Errorf("%s: %+v after %+v", when, now, last)
						}
						last = now
					}
					src, reads := &faulty{Source: n}, 0
					each := func(string) error {
						if now := d.Activity(); now.Running != 1 {
							t.Errorf("while it reads: %+v", now)
						}
						reads++
						return nil
					}
					if threads == 1 {
						src.each.Store(&each)
					}
					load := func(progress func(int64)) device.Weights {
						t.Helper()
						w, err := d.Load(t.Context(), n.Manifest, device.LoadPlan{Streamed: streamed}, src, progress)
						if err != nil {
							t.Fatal(err)
						}
						return w
					}
					load(nil).Free() // threads go on reading while it is told, so that reads are looked at without
					src.each.Store(nil)
					moves("behind a load", 0)
					told := 0
					w := load(func(int64) {
						told++
						if now := d.Activity(); now.Running != 0 {
							t.Errorf("while it tells: %+v", now)
						}
					})
					defer w.Free()
					moves("behind the load that tells", 0)
					var o device.RunOptions
					if banded {
						o.ScratchLimit = 1
					}
					r, err := d.NewRun(n.Tape, w, o)
					if err != nil {
						t.Fatal(err)
					}
					defer r.Free()
					for _, in := range n.Tape.Inputs() {
						if err := r.Write(in.Name, n.Inputs[in.Name]); err != nil {
							t.Fatal(err)
						}
					}
					for range 2 {
						if err := r.Execute(t.Context()); err != nil {
							t.Fatal(err)
						}
						moves("behind an execution", 0)
					}
					if told == 0 || threads == 1 && reads == 0 {
						t.Errorf("it was told %d times of %d reads", told, reads)
					}
				})
			}
		}
	}
}
