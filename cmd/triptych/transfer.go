package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"
)

// transfer shows how far bytes are that are fetched or copied: a bar on a terminal, else a line for every tenth.
type transfer struct {
	w    io.Writer
	bars *mpb.Progress // nil where nobody looks
	bar  *mpb.Bar
	name string
	told int64 // the last bytes a plain line told of
}

func newTransfer(cmd *cobra.Command) *transfer {
	t := &transfer{w: cmd.ErrOrStderr()}
	if f, ok := t.w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		t.bars = mpb.New(mpb.WithOutput(f), mpb.WithWidth(40), mpb.WithRefreshRate(100*time.Millisecond))
	}
	return t
}

// Line writes a line, above the bar if there is one.
func (t *transfer) Line(format string, args ...any) {
	text := fmt.Sprintf(format, args...) + "\n"
	if t.bars != nil {
		_, _ = t.bars.Write([]byte(text))
		return
	}
	fmt.Fprint(t.w, text)
}

// unknownStep is how often a plain line tells of a file whose size nobody knows.
const unknownStep = 1 << 30

// Bytes tells how far name is; all is 0 while nobody knows.
func (t *transfer) Bytes(name string, done, all int64) {
	if t.bars == nil {
		if t.name != name || done < t.told {
			t.name, t.told = name, 0
		}
		step := all / 10
		if all == 0 {
			step = unknownStep
		}
		switch {
		case all > 0 && done == all:
			fmt.Fprintf(t.w, "%s %s done\n", name, humanize.IBytes(uint64(all)))
		case done-t.told < max(step, 1):
			return
		case all > 0:
			fmt.Fprintf(t.w, "%s %s of %s\n", name, humanize.IBytes(uint64(done)), humanize.IBytes(uint64(all)))
		default:
			fmt.Fprintf(t.w, "%s %s\n", name, humanize.IBytes(uint64(done)))
		}
		t.told = done
		return
	}
	if t.name != name {
		t.drop()
		t.name = name
		counters := decor.Any(func(s decor.Statistics) string {
			if s.Total <= 0 {
				return " " + humanize.IBytes(uint64(s.Current))
			}
			return " " + humanize.IBytes(uint64(s.Current)) + "/" + humanize.IBytes(uint64(s.Total))
		})
		t.bar = t.bars.AddBar(all, mpb.BarRemoveOnComplete(), mpb.PrependDecorators(decor.Name(name)), mpb.AppendDecorators(counters))
	}
	t.bar.SetCurrent(done)
}

// drop takes the bar away.
func (t *transfer) drop() {
	if t.bar != nil {
		t.bar.Abort(true)
		t.bar.Wait()
		t.bar, t.name = nil, ""
	}
}

// close ends the view; what comes later is printed plainly.
func (t *transfer) close() {
	t.drop()
	if t.bars != nil {
		t.bars.Wait()
		t.bars = nil
	}
}
