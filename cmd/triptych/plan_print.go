package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/dustin/go-humanize"
)

func (p plan) print(w io.Writer) error {
	for i, m := range p.Models {
		if i > 0 {
			fmt.Fprintln(w)
		}
		if err := m.print(w); err != nil {
			return err
		}
	}
	if t := p.Together; t != nil {
		fmt.Fprintf(w, "\nall %d models, asked for in turn\n", len(p.Models))
		t.printShared(w)
		t.print(w, "an image on average")
		printBudgets(w, t.LeastBudgetBytes, t.LeastStreamedBudgetBytes, t.AllBytes)
	}
	return nil
}

func (p *modelPlan) print(w io.Writer) error {
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
		fmt.Fprintf(t, "%s\t%s\t%s%s\t%s\t%s\t%s\t%s\t%s\t%v\n", s.Stage, size(s.WeightsBytes), size(s.MostScratchBytes), estimated, size(s.LeastScratchBytes),
			s.Mode, size(s.PeakBytes), some(s.SpillBytes), some(s.StreamedBytes), s.Convolutions)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if err := p.printNetworks(w); err != nil {
		return err
	}
	fmt.Fprintln(w)
	p.cyclePlan.print(w, "an image")
	switch {
	case p.Mode == modeRefused || len(p.Flags) == 0:
	case p.Runs && p.WeightsPresent:
		fmt.Fprintf(w, "Run it with %s.\n", strings.Join(p.Flags, " "))
	default:
		fmt.Fprintf(w, "It would run with %s.\n", strings.Join(p.Flags, " "))
	}
	if err := p.printRates(w); err != nil {
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
func (p *modelPlan) printRates(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	heading := "LOADING\tREAD\tPACKED\tMEASURED ON\n"
	for _, s := range p.Stages {
		if m := s.Measured; m != nil {
			packed := "-"
			if m.PackBytesPerSecond > 0 {
				packed = humanize.Bytes(uint64(m.PackBytesPerSecond)) + "/s"
			}
			fmt.Fprintf(t, "%s%s\t%s/s\t%s\t%s\n", heading, s.Stage, humanize.Bytes(uint64(m.ReadBytesPerSecond)), packed, size(m.SampleBytes))
			heading = ""
		}
	}
	return t.Flush()
}

// printNetworks tells what the numbers are from, unless that is the model itself, which Triptych runs.
func (p *modelPlan) printNetworks(w io.Writer) error {
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
			formulas = append(formulas, fmt.Sprintf("%s %s", s.Stage, s.ScratchAtLeast))
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

// print tells how images are made; each is one of them.
func (c *cyclePlan) print(w io.Writer, each string) {
	fmt.Fprintf(w, "Mode: %s.", c.Mode)
	if c.PeakBytes > 0 {
		fmt.Fprintf(w, " At most %s are reserved at once.", size(c.PeakBytes))
	}
	if c.Mode != modeRefused && c.Mode != modeAll {
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
	case c.Mode == modeRefused:
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
