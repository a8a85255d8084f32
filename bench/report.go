package main

import (
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/triptych-serving/triptych/engine/kernel"
)

// rowTitles are the rows by name, in the order of the table.
func rowTitles() [][2]string {
	return [][2]string{
		{"encode", "text encoder, 2 prompts"},
		{"step", fmt.Sprintf("one step: U-Net, batch 2, %dx%d", latentSide, latentSide)},
		{"denoise", fmt.Sprintf("denoiser, %d steps", steps)},
		{"decode", fmt.Sprintf("VAE to %dx%d, no file", 8*latentSide, 8*latentSide)},
		{"png", "PNG file alone"},
		{"decode_png", "VAE and PNG file"},
		{"image", fmt.Sprintf("whole image, %d steps", steps)},
	}
}

// report is all that a run tells. Times are milliseconds.
type report struct {
	Date        string   `json:"date"`
	Machine     machine  `json:"machine"`
	Model       string   `json:"model"`
	Kernel      string   `json:"kernel"`
	Threads     int      `json:"threads"`
	Repetitions int      `json:"repetitions"`
	Warmups     int      `json:"warmups"`
	Work        string   `json:"work"`
	FMAPeak     summary  `json:"fma_peak_one_core_gflops"`
	RSS         int64    `json:"peak_rss_bytes"`
	Peer        peerInfo `json:"peer"`
	Rows        []*row   `json:"rows"`

	peaks []float64
}

// peerInfo is the other side, or why there is none.
type peerInfo struct {
	hello
	Problem string `json:"problem,omitempty"`
	// WaitPolicy is OMP_WAIT_POLICY, which decides whether the threads of PyTorch spin between the parts of their work.
	WaitPolicy string `json:"omp_wait_policy,omitempty"`
	RSS        int64  `json:"peak_rss_bytes,omitempty"`
}

// row is one kind of work. Theirs, Ratio (ours to theirs, of the medians) and Check are there with a peer only.
type row struct {
	Name   string   `json:"name"`
	Title  string   `json:"title"`
	Ours   summary  `json:"ours_ms"`
	Theirs *summary `json:"theirs_ms,omitempty"`
	Ratio  float64  `json:"ratio,omitempty"`
	Check  *check   `json:"check,omitempty"`
	// GFLOPS is our rate at the median, PeakShare that of the FMA peak of all threads.
	GFLOPS    float64 `json:"ours_gflops,omitempty"`
	PeakShare float64 `json:"ours_peak_share,omitempty"`
	// OurSamples and TheirSamples are by repetition.
	OurSamples   []float64 `json:"ours_samples_ms"`
	TheirSamples []float64 `json:"theirs_samples_ms,omitempty"`

	flops float64
}

func newReport(o options, us *engine) report {
	r := report{
		Date: time.Now().Format(time.RFC3339), Machine: thisMachine(), Model: us.model, Kernel: kernel.Variant(), Threads: o.threads,
		Repetitions: o.reps, Warmups: o.warmups,
		Work: fmt.Sprintf("%q against %q, ddim, %d steps, guidance_scale %d, seed %d, %dx%d pixels", prompt, negativePrompt, steps, guidanceScale, seed, 8*latentSide, 8*latentSide),
		Peer: peerInfo{WaitPolicy: os.Getenv("OMP_WAIT_POLICY")},
	}
	for _, t := range rowTitles() {
		r.Rows = append(r.Rows, &row{Name: t[0], Title: t[1], flops: us.work[t[0]]})
	}
	return r
}

// peak measures the FMA peak between the repetitions.
func (r *report) peak(counts bool) {
	if v := measurePeak(); counts {
		r.peaks = append(r.peaks, v)
	}
}

// add files our times of one operation.
func (r *report) add(ours outcome) {
	for _, w := range r.Rows {
		if seconds, ok := ours.seconds[w.Name]; ok {
			w.OurSamples = append(w.OurSamples, 1e3*seconds)
		}
	}
}

// addPeer files the peer's times of one operation, and how far its result was from ours.
func (r *report) addPeer(theirs outcome, c check) {
	for _, w := range r.Rows {
		seconds, ok := theirs.seconds[w.Name]
		if !ok {
			continue
		}
		w.TheirSamples = append(w.TheirSamples, 1e3*seconds)
		if w.Check == nil {
			w.Check = &check{}
		}
		w.Check.Relative, w.Check.Unequal = max(w.Check.Relative, c.Relative), max(w.Check.Unequal, c.Unequal)
	}
}

// finish computes what the samples amount to.
func (r *report) finish(them *peer) {
	r.Machine.LoadAfter = loadAverage()
	r.FMAPeak = summarize(r.peaks)
	r.RSS = peakRSS(os.Getpid())
	if them != nil {
		r.Peer.RSS = peakRSS(them.pid())
	}
	for _, w := range r.Rows {
		w.Ours = summarize(w.OurSamples)
		if len(w.TheirSamples) > 0 {
			theirs := summarize(w.TheirSamples)
			w.Theirs, w.Ratio = &theirs, w.Ours.Median/theirs.Median
		}
		if w.flops > 0 {
			w.GFLOPS = w.flops / w.Ours.Median / 1e6
			w.PeakShare = w.GFLOPS / (r.FMAPeak.Max * float64(r.Threads))
		}
	}
}

// table is the report for people.
func (r *report) table() string {
	var b strings.Builder
	m := r.Machine
	fmt.Fprintf(&b, "%s, %d cores, %s/%s, %s, kernel %s, %d threads, %s\n", m.CPU, m.Cores, m.OS, m.Arch, m.Go, r.Kernel, r.Threads, r.Date)
	fmt.Fprintf(&b, "load average %s before, %s after (1, 5, 15 minutes)\n", orUnknown(m.LoadBefore), orUnknown(m.LoadAfter))
	fmt.Fprintf(&b, "FMA peak of one core: %.1f GFLOP/s at best, %.1f in the median, measured between the repetitions\n", r.FMAPeak.Max, r.FMAPeak.Median)
	fmt.Fprintf(&b, "%s: %s; %d repetitions, %d before them not counted\n", r.Model, r.Work, r.Repetitions, r.Warmups)
	if v := r.Peer.Versions; v != nil {
		fmt.Fprintf(&b, "peer: diffusers %s, torch %s, transformers %s, Python %s, %d threads; U-Net %s, VAE %s\n",
			v["diffusers"], v["torch"], v["transformers"], v["python"], r.Peer.Threads, r.Peer.Layouts["unet"], r.Peer.Layouts["vae"])
	}
	if r.Peer.Problem != "" {
		fmt.Fprintf(&b, "no peer: %s\n", r.Peer.Problem)
	}
	b.WriteByte('\n')
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "milliseconds\tmedian\tmin\tmax\tspread\t% of peak\tpeer median\tmin\tmax\tspread\tratio\tdifference")
	for _, row := range r.Rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", row.Title, cells(&row.Ours), share(row.PeakShare), cells(row.Theirs), ratio(row.Ratio), row.Check)
	}
	_ = w.Flush() // a strings.Builder takes everything
	fmt.Fprintf(&b, "\npeak RSS: ours %s, peer %s\n", mebibytes(r.RSS), mebibytes(r.Peer.RSS))
	return b.String()
}

// String is the check's cell of the table.
func (c *check) String() string {
	switch {
	case c == nil:
		return "-"
	case c.Unequal > 0:
		return fmt.Sprintf("%.0f/255 in %.3f %%", 255*c.Relative, 100*c.Unequal)
	}
	return fmt.Sprintf("%.1e", c.Relative)
}

func cells(s *summary) string {
	if s == nil {
		return "-\t-\t-\t-"
	}
	return fmt.Sprintf("%.2f\t%.2f\t%.2f\t%.0f %%", s.Median, s.Min, s.Max, 100*s.Spread)
}

func share(v float64) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f %%", 100*v)
}

func ratio(v float64) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", v)
}

func mebibytes(n int64) string {
	if n == 0 {
		return "unknown"
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}
