package main

import (
	"fmt"
	"strconv"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/triptych-serving/triptych/internal/recording"
	"github.com/triptych-serving/triptych/orchestrator/residency/simulate"
	"github.com/triptych-serving/triptych/stage"
)

// exclude refuses flags that contradict each other, as those of traces that are generated beside one that is read.
func (f *simulateFlags) exclude(cmd *cobra.Command) error {
	flags := cmd.Flags()
	if f.file != "" && f.from != "" {
		return usageError{fmt.Errorf("--trace %s and --from %s: expected one of them", f.file, f.from)}
	}
	printed := 0
	for _, is := range []bool{f.asJSON, isStandardOutput(f.write), isStandardOutput(f.report)} {
		if is {
			printed++
		}
	}
	if printed > 1 {
		return usageError{fmt.Errorf("--json, --write-trace %s, --report %s: expected one of them on standard output", standardOutput, standardOutput)}
	}
	for _, name := range []string{"models-mix", "arrivals", "jobs", "load", "seed"} {
		if flags.Changed(name) && (f.file != "" || f.from != "") {
			return usageError{fmt.Errorf("--%s is of traces that are generated, and this one is read", name)}
		}
	}
	return nil
}

// leastPace is the bandwidth of loads, in bytes per second, below which something else was measured.
const leastPace = 1000

// recorded is the trace of a recording. It sets what the recording tells of the machine and no flag does.
func (f *simulateFlags) recorded(cmd *cobra.Command) (simulate.Trace, *recording.Summary, error) {
	var jobs recording.Jobs
	if err := readRecording(cmd.Context(), f.from, jobs.Add); err != nil {
		return simulate.Trace{}, nil, err
	}
	trace, found, err := jobs.Trace()
	if err != nil {
		return simulate.Trace{}, nil, fmt.Errorf("%s: %w", f.from, err)
	}
	if found.Replayed == 0 {
		return simulate.Trace{}, nil, stage.Invalid(stage.InvalidField, "from", f.from, fmt.Sprintf("a recording with at least one whole job; this one replays %v", found))
	}
	flags := cmd.Flags()
	if found.BudgetBytes > 0 && !flags.Changed("budget") {
		f.budgets = []string{strconv.FormatInt(found.BudgetBytes, 10)}
	}
	if pace := found.LoadBytesPerSecond(); pace > 0 && !flags.Changed("load-bandwidth") {
		if pace < leastPace {
			return simulate.Trace{}, nil, stage.Invalid(stage.InvalidField, "from", f.from, fmt.Sprintf("loads of at least %d bytes per second, of which %g were recorded; or give --load-bandwidth", leastPace, pace))
		}
		f.options.LoadBytesPerSecond = pace
	}
	if found.Evictions > 0 && !flags.Changed("evict-seconds") {
		f.options.EvictSeconds = found.EvictSeconds / float64(found.Evictions)
	}
	if !f.asJSON {
		fmt.Fprintf(talk(cmd, f.write, f.report), "%s: replays %v\n  the replay loads %s/s and evicts in %.3f s\n\n", f.from, found,
			humanize.IBytes(uint64(f.options.LoadBytesPerSecond)), f.options.EvictSeconds)
	}
	return trace, &found, nil
}
