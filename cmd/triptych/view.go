package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
)

// view shows the events of a request to a person or a program.
type view interface {
	show(event *triptychv1alpha1.GenerateResponse, files *output) error
	close()
}

// newView draws a bar on a terminal, else prints plain lines; events in json and what comes out at the end go to out.
func newView(cmd *cobra.Command, json bool, out io.Writer) view {
	if json {
		return jsonView{out}
	}
	text := &textView{w: cmd.ErrOrStderr(), out: out}
	if f, ok := text.w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		text.bars = mpb.New(mpb.WithOutput(f), mpb.WithWidth(40), mpb.WithRefreshRate(100*time.Millisecond))
	}
	return text
}

// textView writes lines, and moves a bar while a stage works if there are bars.
type textView struct {
	w, out io.Writer
	bars   *mpb.Progress // nil where nobody looks
	bar    *mpb.Bar
	stage  string
	first  int64     // step told of first
	began  time.Time // then
	told   int32     // the last step a plain line told of
	spec   *triptychv1alpha1.GenerationSpec
}

func (v *textView) show(event *triptychv1alpha1.GenerateResponse, files *output) error {
	switch e := event.GetEvent().(type) {
	case *triptychv1alpha1.GenerateResponse_Accepted:
		v.spec = e.Accepted.GetSpec()
		v.line("%s, seed %d", strings.Join(terms(v.spec), ", "), v.spec.GetSeed())
	case *triptychv1alpha1.GenerateResponse_Queued:
		switch q := e.Queued; {
		case v.spec == nil: // why it is not accepted is told if that takes long
		case q.GetReason() != "":
			v.line("waiting for the %s: %s", q.GetStage(), q.GetReason())
		case q.GetPosition() > 0:
			v.line("waiting for the %s, %d before this request", q.GetStage(), q.GetPosition())
		}
	case *triptychv1alpha1.GenerateResponse_StageLoading:
		if v.bars == nil && e.StageLoading.GetLoadedBytes() < e.StageLoading.GetTotalBytes() {
			return nil
		}
		v.progress("loading "+e.StageLoading.GetStage(), e.StageLoading.GetLoadedBytes(), e.StageLoading.GetTotalBytes(), true)
	case *triptychv1alpha1.GenerateResponse_Progress:
		name, turn := e.Progress.GetStage(), e.Progress.GetTurn()
		switch n := v.spec.GetImageCount(); {
		case !strings.HasPrefix(name, turn): // the turn that the stage is not named for
			name += " " + turn
		case n > 1 && name != "encoder":
			name += fmt.Sprintf(" %d/%d", e.Progress.GetImageIndex()+1, n)
		}
		v.progress(name, int64(e.Progress.GetStep()), int64(e.Progress.GetSteps()), false)
	case *triptychv1alpha1.GenerateResponse_Residency:
		if r := e.Residency; r.GetAction() == triptychv1alpha1.ResidencyEvent_ACTION_EVICT {
			v.line("evicted %s (%s): %s", cmp.Or(r.GetComponent(), r.GetStage()+" "+r.GetModel()), humanize.IBytes(uint64(r.GetBytes())), r.GetReason())
		}
	case *triptychv1alpha1.GenerateResponse_Warning:
		v.line("warning: %s", e.Warning.GetMessage())
	case *triptychv1alpha1.GenerateResponse_Completed:
		v.close()
		v.completed(e.Completed, files)
	}
	return nil
}

// terms tell what is made, in what terms its model has.
func terms(spec *triptychv1alpha1.GenerationSpec) []string {
	parts := []string{spec.GetModel()}
	if spec.WidthPx != nil && spec.HeightPx != nil {
		parts[0] += fmt.Sprintf(" %dx%d", spec.GetWidthPx(), spec.GetHeightPx())
	}
	if spec.Steps != nil {
		steps := stage.Count(int(spec.GetSteps()), "step")
		if spec.GetSampler() != "" {
			steps += " of " + spec.GetSampler()
		}
		parts = append(parts, steps)
	}
	if spec.GuidanceScale != nil {
		parts = append(parts, fmt.Sprintf("guidance scale %g", spec.GetGuidanceScale()))
	}
	return parts
}

// pace is so many steps in some time in words, empty for none.
func pace(steps int64, took time.Duration) string {
	rate := float64(steps) / took.Seconds()
	switch {
	case steps == 0:
		return ""
	case rate < 1:
		return fmt.Sprintf(", %.1f s/step", 1/rate)
	}
	return fmt.Sprintf(", %.1f steps/s", rate)
}

// progress moves the bar of what is at work, or tells about every tenth of it in plain lines.
func (v *textView) progress(name string, done, all int64, bytes bool) {
	if v.bars == nil {
		if v.stage != name || v.told > int32(done) {
			v.stage, v.told, v.first, v.began = name, 0, done, time.Now()
		}
		if all > 1 && !bytes && (done == all || done-int64(v.told) >= max(1, all/10)) {
			v.told = int32(done)
			fmt.Fprintf(v.w, "%s step %d/%d%s\n", name, done, all, pace(done-v.first, time.Since(v.began)))
		} else if done == all {
			fmt.Fprintf(v.w, "%s done\n", name)
		}
		return
	}
	if v.stage != name {
		v.close()
		v.stage = name
		counters := decor.Any(func(s decor.Statistics) string { return fmt.Sprintf(" %d/%d", s.Current, s.Total) })
		rate := decor.AverageSpeed(0, " %.1f steps/s")
		if bytes {
			counters = decor.Any(func(s decor.Statistics) string {
				return " " + humanize.IBytes(uint64(s.Current)) + "/" + humanize.IBytes(uint64(s.Total))
			})
			rate = decor.Name("")
		}
		v.bar = v.bars.AddBar(all, mpb.BarRemoveOnComplete(), mpb.PrependDecorators(decor.Name(name)), mpb.AppendDecorators(counters, rate))
	}
	v.bar.SetCurrent(done)
}

// line writes a line above the bar.
func (v *textView) line(format string, args ...any) {
	text := fmt.Sprintf(format, args...) + "\n"
	if v.bars != nil {
		_, _ = v.bars.Write([]byte(text))
		return
	}
	fmt.Fprint(v.w, text)
}

// close takes the bar away.
func (v *textView) close() {
	if v.bar != nil {
		v.bar.Abort(true)
		v.bar.Wait()
		v.bar, v.stage = nil, ""
	}
}

// completed tells what was made and what it took.
func (v *textView) completed(c *triptychv1alpha1.Completed, files *output) {
	if v.bars != nil {
		v.bars.Wait()
		v.bars = nil
	}
	for _, i := range files.pieces() {
		fmt.Fprintf(v.out, "%s  seed %d\n", files.written[i], v.spec.GetSeed()+uint64(i.image))
	}
	var parts []string
	for _, s := range c.GetStages() {
		part := fmt.Sprintf("%s %v", s.GetStage(), round(s.GetRunning().AsDuration()))
		if l := s.GetLoading().AsDuration(); l > 0 {
			part += fmt.Sprintf(" (loaded in %v)", round(l))
		}
		parts = append(parts, part)
	}
	fmt.Fprintf(v.out, "%s; total %v, at most %s of memory reserved\n", strings.Join(parts, ", "), round(c.GetTotal().AsDuration()), humanize.IBytes(uint64(c.GetPeakBytes())))
}

func round(d time.Duration) time.Duration {
	if d > time.Second {
		return d.Round(10 * time.Millisecond)
	}
	return d.Round(100 * time.Microsecond)
}
