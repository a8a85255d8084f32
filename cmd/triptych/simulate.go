package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/triptych-serving/triptych/internal/baseline"
	"github.com/triptych-serving/triptych/internal/recording"
	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/orchestrator/residency/simulate"
	"github.com/triptych-serving/triptych/stage"
)

// simulateFlags are what `triptych simulate` is told. The traces are every mix with every kind of
// arrivals, or the one of a file or a recording.
type simulateFlags struct {
	file     string
	from     string
	mixes    []string
	arrivals []string
	budgets  []string
	warm     string
	generate baseline.Generate
	load     byteSize
	options  baseline.Options
	asJSON   bool
	report   string
	write    string
}

// simulated is every policy on one trace under one budget.
type simulated struct {
	Trace        string `json:"trace"`
	Jobs         int    `json:"jobs"`
	WeightsBytes int64  `json:"weights_bytes"` // of all models
	Budget       string `json:"budget"`
	BudgetBytes  int64  `json:"budget_bytes"`
	WarmBytes    int64  `json:"warm_bytes,omitempty"`
	// LoadBytesPerSecond is what the flag says, or what was measured in a recording.
	LoadBytesPerSecond float64            `json:"load_bytes_per_second"`
	Recording          *recording.Summary `json:"recording,omitempty"`
	Online             *baseline.Online   `json:"online,omitempty"` // none where there is too much to choose from
	Results            []baseline.Result  `json:"results"`
}

func simulateCommand() *cobra.Command {
	var f simulateFlags
	cmd := &cobra.Command{
		Use:   "simulate",
		Short: "Replay a trace of jobs through the memory policy on a virtual clock, beside other policies",
		Long: `Replay a trace of jobs through the memory policy on a virtual clock, beside other policies and the least
loading that any policy could have done for the same turns in the same order.

A trace is generated, rebuilt from a recording of 'triptych trace --record' (--from), or read from JSON lines (--trace),
each one of:
  {"job": {"at_seconds": 0.5, "model": "sd15", "images": 2, "width_px": 512, "height_px": 512}}
  {"model": {"name": "mine", "side_px": 512, "encoder": PART, "denoiser": PART, "decoder": PART}}
where PART is {"weights_bytes": 1000000, "scratch_bytes": 1000, "seconds": 0.1}: scratch and computing time of
one turn at side_px x side_px. images is 1 and the sides are the model's unless given. A job may tell its turns
instead, as those of a recording do: {"job": {"at_seconds": 0.5, "turns": [TURN, TURN, TURN]}} with the encoder's, then
the denoiser's and the decoder's of each image, each {"stage": "encoder", "model": "sd15", "weights_bytes": 1000000,
"scratch_bytes": 1000, "seconds": 0.1}; a set that is held together is told as "components": [{"name": "sd15/unet",
"bytes": 1000000}] instead of model and weights_bytes.
Models that are not described are of known sizes: starter, sd15, sdxl, pyramid, or any of them under another
name as in sd15:anime.`,
		Example: "  triptych simulate --models-mix sd15:a=3,sd15:b,sdxl --arrivals bursty --budget 60%\n  triptych simulate --trace jobs.jsonl --budget 8GiB\n  triptych simulate --from events.jsonl",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return whileLasts(cmd.Context(), func() error { return f.run(cmd) }) // a replay asks nobody whether to go on
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.file, "trace", "", "file of a trace; generated without")
	flags.StringVar(&f.from, "from", "", "recording to rebuild a trace from; budget, load bandwidth and seconds of an eviction are those recorded unless given")
	flags.StringVar(&f.write, "write-trace", "", "write the trace, if it is one, to this file, or - for standard output")
	flags.StringArrayVar(&f.mixes, "models-mix", []string{"sd15:a,sd15:b,sd15:c,sdxl"}, "models and how often each is asked for, as in sd15=3,sdxl; may be repeated, for more traces")
	flags.StringSliceVar(&f.arrivals, "arrivals", []string{"poisson"}, "poisson or bursty, or both")
	flags.IntVar(&f.generate.Jobs, "jobs", 200, "jobs of a generated trace")
	flags.Float64Var(&f.generate.Load, "load", 0.5, "part of the time the busiest stage computes, loads not counted")
	flags.Uint64Var(&f.generate.Seed, "seed", 1, "equal seeds give equal traces")
	flags.StringSliceVar(&f.budgets, "budget", []string{"60%"}, "memory budgets: percent of all weights, or sizes such as 8GiB")
	flags.StringVar(&f.warm, "warm-memory", "", "memory of the host for evicted weights, as a budget is given; there is no oracle with it (default: none)")
	f.load = residency.NominalBytesPerSecond
	flags.Var(&f.load, "load-bandwidth", "weights loaded in a second, from storage to ready")
	flags.Float64Var(&f.options.EvictSeconds, "evict-seconds", 0.01, "time until an evicted stage's bytes are back")
	flags.IntVar(&f.options.OracleWidth, "oracle-width", 2000, "sets of components the oracle keeps in view; it is exact unless there are more")
	flags.BoolVar(&f.asJSON, "json", false, "print JSON")
	flags.StringVar(&f.report, "report", "", "write JSON to this file as well, or - for standard output")
	return cmd
}

func (f *simulateFlags) run(cmd *cobra.Command) error {
	if err := f.exclude(cmd); err != nil {
		return err
	}
	for flag, path := range map[string]string{"write-trace": f.write, "report": f.report} {
		if path != "" {
			if err := probe(flag, path); err != nil {
				return err
			}
		}
	}
	f.options.LoadBytesPerSecond = float64(f.load)
	names, traces, recorded, err := f.traces(cmd)
	if err != nil {
		return err
	}
	switch {
	case len(traces) == 0:
		return stage.Invalid(stage.InvalidField, "arrivals", "", "poisson or bursty")
	case len(f.budgets) == 0:
		return stage.Invalid(stage.InvalidField, "budget", "", "a part of all weights such as 60%, or a size such as 8GiB")
	case f.load == 0:
		return stage.Invalid(stage.InvalidField, "load-bandwidth", 0, "a positive size")
	case !(f.options.EvictSeconds >= 0 && f.options.EvictSeconds <= 3600):
		return stage.Invalid(stage.InvalidField, "evict-seconds", f.options.EvictSeconds, "0 to 3600")
	case f.options.OracleWidth < 1:
		return stage.Invalid(stage.InvalidField, "oracle-width", f.options.OracleWidth, "a positive number")
	}
	if f.write != "" {
		if len(traces) != 1 {
			return usageError{fmt.Errorf("--write-trace writes one trace, and these flags make %d", len(traces))}
		}
		if err := writeFile(f.write, cmd.OutOrStdout(), traces[0].Write); err != nil {
			return err
		}
	}
	out := talk(cmd, f.write, f.report)
	var rows []simulated
	for i, t := range traces {
		for _, budget := range f.budgets {
			row := simulated{Trace: names[i], Jobs: len(t.Jobs), WeightsBytes: t.WeightsBytes(), Budget: budget, LoadBytesPerSecond: f.options.LoadBytesPerSecond, Recording: recorded}
			if row.BudgetBytes, err = parseBudget("budget", budget, row.WeightsBytes); err != nil {
				return err
			}
			if f.warm != "" {
				if row.WarmBytes, err = parseBudget("warm-memory", f.warm, row.WeightsBytes); err != nil {
					return err
				}
			}
			f.options.BudgetBytes, f.options.WarmBytes = row.BudgetBytes, row.WarmBytes
			if row.Results, err = baseline.Compare(t, f.options); err != nil {
				return fmt.Errorf("%s, budget %s: %w", row.Trace, budget, err)
			}
			if online, ok := baseline.FindOnline(t, f.options); ok {
				row.Online = &online
			}
			rows = append(rows, row)
			if !f.asJSON {
				if err := row.print(out); err != nil {
					return err
				}
			}
		}
	}
	if f.report != "" {
		if err := writeFile(f.report, cmd.OutOrStdout(), func(w io.Writer) error { return printJSON(w, rows) }); err != nil {
			return err
		}
	}
	if f.asJSON {
		return printJSON(cmd.OutOrStdout(), rows)
	}
	return nil
}

// traces are all that the flags ask for, with names, and what there is to say of a recording.
func (f *simulateFlags) traces(cmd *cobra.Command) (names []string, traces []simulate.Trace, recorded *recording.Summary, err error) {
	switch {
	case f.from != "":
		t, found, err := f.recorded(cmd)
		return []string{f.from}, []simulate.Trace{t}, found, err
	case f.file != "":
		file, err := openFile("trace", f.file)
		if err != nil {
			return nil, nil, nil, err
		}
		defer file.Close()
		t, err := simulate.ReadTrace(file)
		if err == nil && len(t.Jobs) == 0 {
			err = stage.Invalid(stage.InvalidField, "trace", f.file, "a file with at least one job")
		}
		return []string{f.file}, []simulate.Trace{t}, nil, err
	}
	for _, mix := range f.mixes {
		for _, arrivals := range f.arrivals {
			g := f.generate
			g.Arrivals = baseline.Arrivals(arrivals)
			if g.Mix, err = baseline.ParseMix(mix); err != nil {
				return nil, nil, nil, err
			}
			t, err := g.Trace()
			if err != nil {
				return nil, nil, nil, err
			}
			names, traces = append(names, mix+" "+arrivals), append(traces, t)
		}
	}
	return names, traces, nil, nil
}

// parseBudget reads a percentage of all weights, or a size.
func parseBudget(flag, text string, all int64) (int64, error) {
	if number, ok := strings.CutSuffix(text, "%"); ok {
		percent, err := strconv.ParseFloat(number, 64)
		if bytes := percent / 100 * float64(all); err == nil && bytes >= 1 && bytes < math.MaxInt64/2 {
			return int64(bytes), nil
		}
	} else if n, err := humanize.ParseBytes(text); err == nil && n >= 1 && n < math.MaxInt64/2 {
		return int64(n), nil
	}
	return 0, stage.Invalid(stage.InvalidField, flag, text, "a part of all weights such as 60%, or a size such as 8GiB")
}

func (r simulated) print(w io.Writer) error {
	fmt.Fprintf(w, "%s: %s, budget %s = %s of %s of weights", r.Trace, stage.Count(r.Jobs, "job"), r.Budget, humanize.IBytes(uint64(r.BudgetBytes)), humanize.IBytes(uint64(r.WeightsBytes)))
	if r.WarmBytes > 0 {
		fmt.Fprintf(w, ", %s warm", humanize.IBytes(uint64(r.WarmBytes)))
	}
	fmt.Fprint(w, "\n\n")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "POLICY\tLOADS\tFROM WARM\tRELOAD s\tORACLE s\tRATIO\tWAITED s\tP50 s\tP95 s\tP99 s\tDONE\tREFUSED\tVIOLATIONS\t")
	for _, p := range r.Results {
		oracle := fmt.Sprintf("%.1f", p.OracleSeconds)
		switch {
		case r.WarmBytes > 0:
			oracle = "-"
		case !p.OracleExact:
			oracle = ">=" + oracle
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%.1f\t%s\t%s\t%.1f\t%.1f\t%.1f\t%.1f\t%d\t%d\t%d\t\n", p.Policy, p.Loads, p.FromWarm, p.ReloadSeconds, oracle,
			ratio(p.ReloadSeconds, p.OracleSeconds), p.WaitingSeconds, p.P50Seconds, p.P95Seconds, p.P99Seconds, p.Done, p.Refused, p.Violations)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w)
	return err
}

func ratio(a, b float64) string {
	if b == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", a/b)
}

func printJSON(w io.Writer, v any) error {
	out := json.NewEncoder(w)
	out.SetIndent("", " ")
	return out.Encode(v)
}

// writeFile writes a file, or to stdout.
func writeFile(path string, stdout io.Writer, write func(io.Writer) error) error {
	if isStandardOutput(path) {
		return write(stdout)
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	err = write(file)
	return cmp.Or(err, file.Close())
}
