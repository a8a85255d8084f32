package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"
)

// transfer shows how far files are that are fetched or copied: bars on a terminal, else a line for every tenth. Safe for
// concurrent use.
type transfer struct {
	w     io.Writer
	mu    sync.Mutex
	told  map[string]int64 // the last bytes of a file that a plain line told of
	bars  *mpb.Progress    // nil where nobody looks
	moved map[string]*mpb.Bar
}

func newTransfer(cmd *cobra.Command) *transfer {
	t := &transfer{w: cmd.ErrOrStderr(), told: map[string]int64{}, moved: map[string]*mpb.Bar{}}
	if f, ok := t.w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		t.bars = mpb.New(mpb.WithOutput(f), mpb.WithWidth(40), mpb.WithRefreshRate(100*time.Millisecond))
	}
	return t
}

// Line writes a line, above the bars if there are any.
func (t *transfer) Line(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := fmt.Sprintf(format, args...) + "\n"
	if t.bars != nil {
		_, _ = t.bars.Write([]byte(text))
		return
	}
	fmt.Fprint(t.w, text)
}

// Bytes tells how far a file is; all is 0 while nobody knows.
func (t *transfer) Bytes(name string, done, all int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.bars == nil {
		t.plain(name, done, all)
		return
	}
	bar := t.moved[name]
	if bar == nil {
		counters := decor.Any(func(s decor.Statistics) string {
			if s.Total <= 0 {
				return " " + humanize.IBytes(uint64(s.Current))
			}
			return " " + humanize.IBytes(uint64(s.Current)) + "/" + humanize.IBytes(uint64(s.Total))
		})
		bar = t.bars.AddBar(all, mpb.BarRemoveOnComplete(), mpb.PrependDecorators(decor.Name(name)), mpb.AppendDecorators(counters))
		t.moved[name] = bar
	}
	bar.SetCurrent(done)
	if done == all {
		delete(t.moved, name)
	}
}

// unknownStep is how often a plain line tells of a file whose size nobody knows.
const unknownStep = 1 << 30

// plain tells about every tenth of a file.
func (t *transfer) plain(name string, done, all int64) {
	last := t.told[name]
	if done < last { // it began anew
		last = 0
	}
	step := max(all/10, 1)
	if all == 0 {
		step = unknownStep
	}
	switch {
	case all > 0 && done == all:
		fmt.Fprintf(t.w, "%s %s done\n", name, humanize.IBytes(uint64(all)))
		delete(t.told, name)
		return
	case done-last < step:
		return
	case all > 0:
		fmt.Fprintf(t.w, "%s %s of %s\n", name, humanize.IBytes(uint64(done)), humanize.IBytes(uint64(all)))
	default:
		fmt.Fprintf(t.w, "%s %s\n", name, humanize.IBytes(uint64(done)))
	}
	t.told[name] = done
}

// close takes the bars away; what comes later is printed plainly.
func (t *transfer) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.bars == nil {
		return
	}
	for _, bar := range t.moved {
		bar.Abort(true)
	}
	t.bars.Wait()
	t.bars = nil
}
