package main

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/dustin/go-humanize"

	"github.com/triptych-serving/triptych/planner"
)

func printPlan(w io.Writer, p planner.Plan) error {
	for i, m := range p.Models {
		if i > 0 {
			fmt.Fprintln(w)
		}
		if err := printModel(w, m); err != nil {
			return err
		}
	}
	if t := p.Together; t != nil {
		fmt.Fprintf(w, "\nall %d models, asked for in turn\n", len(p.Models))
		printShared(w, t)
		printCycle(w, t.Cycle, "an image on average")
		printBudgets(w, t.LeastBudgetBytes, t.LeastStreamedBudgetBytes, t.AllBytes)
	}
	return nil
}

func printModel(w io.Writer, p planner.Model) error {
	fmt.Fprintf(w, "%s %dx%d\n", p.Model, p.WidthPx, p.HeightPx)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	some := func(n int64) string {
		if n == 0 {
			return "-"
		}
		return size(n)
	}
	fmt.Fprintln(t, "\nSTAGE\tWEIGHTS\tSCRATCH\tAT LEAST\tRUNS\tTAKES\tON DISK\tREADS A STEP\tCONVOLUTIONS")
	for _, s := range p.Stages {
		estimated := ""
		if s.Estimated {
			estimated = " (estimated)"
		}
		fmt.Fprintf(t, "%s\t%s\t%s%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.Name(), size(s.WeightsBytes), size(s.MostScratchBytes), estimated, size(s.LeastScratchBytes),
			s.Mode, size(s.PeakBytes), some(s.SpillBytes), some(s.StreamedBytes), convolutions(s.Convolutions))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if err := printNetworks(w, p); err != nil {
		return err
	}
	fmt.Fprintln(w)
	printCycle(w, p.Cycle, "an image")
	switch {
	case p.Mode == planner.ModeRefused || len(p.Flags) == 0:
	case p.Runs && p.WeightsPresent:
		fmt.Fprintf(w, "Run it with %s.\n", strings.Join(p.Flags, " "))
	default:
		fmt.Fprintf(w, "It would run with %s.\n", strings.Join(p.Flags, " "))
	}
	if err := printRates(w, p); err != nil {
		return err
	}
	printBudgets(w, p.LeastBudgetBytes, p.LeastStreamedBudgetBytes, p.AllBytes)
	var warnings []string
	for _, s := range p.Stages {
		for _, n := range s.Networks {
			warnings = append(warnings, n.Warnings...)
		}
	}
	return printWarnings(w, warnings)
}

// printRates tells how fast stages were loaded.
func printRates(w io.Writer, p planner.Model) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	heading := "LOADING\tREAD\tPACKED\tMEASURED ON\n"
	for _, s := range p.Stages {
		if m := s.Measured; m != nil {
			packed := "-"
			if m.PackBytesPerSecond > 0 {
				packed = humanize.Bytes(uint64(m.PackBytesPerSecond)) + "/s"
			}
			fmt.Fprintf(t, "%s%s\t%s/s\t%s\t%s\n", heading, s.Name(), humanize.Bytes(uint64(m.ReadBytesPerSecond)), packed, size(m.SampleBytes))
			heading = ""
		}
	}
	return t.Flush()
}

// printNetworks tells what the numbers are from, unless that is the model itself, which Triptych runs.
func printNetworks(w io.Writer, p planner.Model) error {
	if p.Runs && p.WeightsPresent {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nNETWORK\tCLASS\tPARAMETERS\tSTORED\tTYPE\tFILES")
	var unknown, formulas []string
	for _, s := range p.Stages {
		for _, n := range s.Networks {
			files := "absent"
			if n.Present {
				files = "there"
			}
			if !n.Runs {
				unknown = append(unknown, n.Class)
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", n.Network, n.Class, humanize.Comma(n.Parameters), size(n.StoredBytes), n.DType, files)
		}
		if s.Estimated {
			formulas = append(formulas, fmt.Sprintf("%s %s", s.Name(), s.ScratchAtLeast))
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	if !p.WeightsPresent {
		fmt.Fprintln(w, "Weights are absent: planned from configs and headers.")
	}
	if !p.Runs {
		fmt.Fprintf(w, "Triptych cannot run %s yet.\n", p.Pipeline)
	}
	if len(unknown) > 0 {
		fmt.Fprintf(w, "It has no %s: scratch is a lower bound, in float32 values a token: %s.\n", strings.Join(unknown, " and no "), strings.Join(formulas, "; "))
	}
	return nil
}

// printCycle tells how images are made; each is one of them.
func printCycle(w io.Writer, c planner.Cycle, each string) {
	fmt.Fprintf(w, "Mode: %s.", c.Mode)
	if c.PeakBytes > 0 {
		fmt.Fprintf(w, " At most %s are reserved at once.", size(c.PeakBytes))
	}
	if c.Mode != planner.ModeRefused && c.Mode != planner.ModeAll {
		if len(c.Resident) > 0 {
			fmt.Fprintf(w, " What stays: %s.", strings.Join(c.Resident, ", "))
		}
		if len(c.Warm) > 0 {
			fmt.Fprintf(w, " Warm in between: %s.", strings.Join(c.Warm, ", "))
		}
		if len(c.Reloaded) > 0 {
			fmt.Fprintf(w, " Loaded again: %s.", strings.Join(c.Reloaded, ", "))
		}
	}
	fmt.Fprintln(w)
	switch {
	case c.Mode == planner.ModeRefused:
	case c.ReloadSeconds == nil:
		fmt.Fprintf(w, "Reloads read %s for %s; --load-bandwidth tells how long that takes.\n", size(c.ReloadedBytes), each)
	case c.ReloadedBytes > 0:
		fmt.Fprintf(w, "Reloads take %s for %s, of %s.\n", secondsText(*c.ReloadSeconds), each, size(c.ReloadedBytes))
	default:
		fmt.Fprintln(w, "Nothing is loaded twice.")
	}
	if c.StreamSecondStep != nil {
		fmt.Fprintf(w, "Reading the streamed weights of the denoiser takes %s a step, while it computes.\n", secondsText(*c.StreamSecondStep))
	}
}

func printBudgets(w io.Writer, least, streamed, all int64) {
	const mib = 1 << 20
	up := func(n int64) string { return flagSize((n + mib - 1) / mib * mib) }
	fmt.Fprintf(w, "The smallest memory budget is %s, or with weights streamed %s; with %s nothing is evicted.\n", up(least), up(streamed), up(all))
}

// printShared tells what is counted once.
func printShared(w io.Writer, t *planner.Together) {
	var parts []string
	for _, s := range t.Shared {
		parts = append(parts, fmt.Sprintf("%s of %s", s.Stage, strings.Join(s.Models, ", ")))
	}
	if len(parts) > 0 {
		fmt.Fprintf(w, "Shared, being equal: %s.\n", strings.Join(parts, "; "))
	}
	if len(t.NotCompared) > 0 {
		fmt.Fprintf(w, "Not compared, and counted as different, for want of weights or of a pipeline that runs: %s.\n", strings.Join(t.NotCompared, ", "))
	}
}

// convolutions are those of each algorithm, the most first, as in "winograd4 41, direct 12".
func convolutions(of map[string]int) string {
	names := slices.SortedFunc(maps.Keys(of), func(a, b string) int { return 2*(of[b]-of[a]) + strings.Compare(a, b) })
	var out []string
	for _, name := range names {
		out = append(out, fmt.Sprintf("%s %d", name, of[name]))
	}
	if len(out) == 0 {
		return "-"
	}
	return strings.Join(out, ", ")
}

// flagSize writes bytes as a flag, exactly.
func flagSize(n int64) string {
	const kib, mib = 1 << 10, 1 << 20
	switch {
	case n%mib == 0:
		return fmt.Sprintf("%dMiB", n/mib)
	case n%kib == 0:
		return fmt.Sprintf("%dKiB", n/kib)
	}
	return fmt.Sprint(n)
}

// size writes bytes for people.
func size(n int64) string { return humanize.IBytes(uint64(n)) }

// secondsText writes seconds to three digits.
func secondsText(s float64) string {
	switch {
	case s == 0:
		return "0 s"
	case s < 0.001:
		return "less than 0.001 s"
	}
	digits := max(0, 2-int(math.Floor(math.Log10(s))))
	return fmt.Sprintf("%.*f s", min(digits, 3), s)
}
