package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/triptych-serving/triptych/internal/recording"
	"github.com/triptych-serving/triptych/internal/timeline"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
)

// traceFlags are what `triptych trace` is told. Files without a name are not written.
type traceFlags struct {
	server serverFlags
	output string
	record string
	from   string
	last   time.Duration
}

func traceCommand() *cobra.Command {
	var f traceFlags
	cmd := &cobra.Command{
		Use:   "trace",
		Short: "Record who is in memory and who works, as a timeline for https://ui.perfetto.dev or to be replayed",
		Long: `Record who is in memory and who works, as a timeline for https://ui.perfetto.dev (--output), as the messages
of the stream themselves (--record), or both. A recording has one message a line and is complete at any moment; it
is what 'triptych trace --from' makes a timeline of, and what 'triptych simulate --from' replays.`,
		Example: "  triptych trace -o trace.json --for 30s\n  triptych trace --record events.jsonl\n  triptych trace --from events.jsonl -o trace.json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.check(cmd); err != nil {
				return err
			}
			if f.from != "" {
				return f.draw(cmd)
			}
			return f.listen(cmd)
		},
	}
	flags := cmd.Flags()
	f.server.add(flags, defaultListen, "address of the orchestrator to listen to")
	flags.StringVarP(&f.output, "output", "o", "trace.json", "timeline to write, or - for standard output; with --record, none unless it is given")
	flags.StringVar(&f.record, "record", "", "recording to write, or - for standard output")
	flags.StringVar(&f.from, "from", "", "recording to make a timeline of, instead of listening")
	flags.DurationVar(&f.last, "for", 0, "how long to listen (default: until ctrl-C)")
	return cmd
}

// check refuses flags that contradict each other and files that cannot be written, before anything is heard.
func (f *traceFlags) check(cmd *cobra.Command) error {
	flags := cmd.Flags()
	if flags.Changed("for") && f.last <= 0 {
		return usageError{fmt.Errorf("--for %v: expected a time above 0, such as 30s", f.last)}
	}
	if f.from != "" {
		for _, name := range []string{"record", "for", "server", "server-ca", "server-client-cert", "server-client-key"} {
			if flags.Changed(name) {
				return usageError{fmt.Errorf("--%s is for listening, and --from reads a recording", name)}
			}
		}
	}
	if f.record != "" && !flags.Changed("output") {
		f.output = ""
	}
	if f.output == "" && (f.record == "" || f.from != "") {
		return usageError{fmt.Errorf("--output \"\": expected a file")}
	}
	for _, read := range []string{f.from, f.record} {
		if read != "" && filepath.Clean(read) == filepath.Clean(f.output) {
			return usageError{fmt.Errorf("--output %s is the recording, expected another file", f.output)}
		}
	}
	for _, file := range []struct{ flag, path string }{{"output", f.output}, {"record", f.record}} {
		if file.path == "" {
			continue
		}
		if err := probe(file.flag, file.path); err != nil {
			return err
		}
	}
	return nil
}

// listen listens until it is interrupted, the time is over or the server ends, and writes what it heard: the recording
// at once, the timeline at the end. That the server ended is an error, after the files are written.
func (f *traceFlags) listen(cmd *cobra.Command) error {
	ctx, cancel := context.WithCancel(context.WithoutCancel(cmd.Context()))
	defer cancel()
	var (
		seen  timeline.Timeline
		file  *os.File
		tape  *recording.Writer
		count atomic.Int64 // of news
		heard time.Time    // here, when the server made the last news
		made  time.Time    // there
	)
	end := func() { settle(&count, cancel) }
	defer context.AfterFunc(cmd.Context(), end)()
	err := f.server.watch(ctx, false, func(news *triptychv1alpha1.WatchResidencyResponse) error {
		if count.Add(1) == 1 {
			switch {
			case f.record == "":
			case isStandardOutput(f.record):
				tape = recording.NewWriter(cmd.OutOrStdout())
			default:
				var err error
				if file, err = os.Create(f.record); err != nil {
					return err
				}
				tape = recording.NewWriter(file)
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "listening to %s; ctrl-C ends it and leaves %s\n", f.server.address, f.files())
			if f.last > 0 {
				time.AfterFunc(f.last, end)
			}
		}
		heard, made = time.Now(), madeAt(news)
		if f.output != "" {
			seen.Add(news)
		}
		if tape != nil {
			return tape.Write(news)
		}
		return nil
	})
	if file != nil {
		err = errors.Join(err, file.Close())
	}
	if tape != nil {
		fmt.Fprintf(talk(cmd, f.output, f.record), "%s  %s; replay them with triptych simulate --from\n", f.record, stage.Count(tape.Messages(), "message"))
	}
	if heard.IsZero() || f.output == "" {
		return err
	}
	return errors.Join(err, f.picture(cmd, &seen, made.Add(time.Since(heard))))
}

// stragglers is how long news take at most that were made before the end.
const stragglers = 100 * time.Millisecond

// settle ends a stream once it has been silent for long enough to have told what was made before, and within a second.
func settle(count *atomic.Int64, cancel func()) {
	defer cancel()
	for range 10 {
		before := count.Load()
		if before == 0 {
			return // nothing is to be written
		}
		time.Sleep(stragglers)
		if count.Load() == before {
			return
		}
	}
}

// files names what is written.
func (f *traceFlags) files() string {
	if f.output != "" && f.record != "" {
		return f.record + " and " + f.output
	}
	return f.record + f.output
}

// madeAt is when the server made news.
func madeAt(news *triptychv1alpha1.WatchResidencyResponse) time.Time {
	if s := news.GetSnapshot(); s != nil {
		return s.GetTime().AsTime()
	}
	return news.GetDecision().GetEvent().GetTime().AsTime()
}

// draw makes the timeline of a recording, which ends with its last message.
func (f *traceFlags) draw(cmd *cobra.Command) error {
	var (
		seen timeline.Timeline
		last time.Time
	)
	err := readRecording(cmd.Context(), f.from, func(_ int, news *triptychv1alpha1.WatchResidencyResponse) error {
		seen.Add(news)
		last = madeAt(news)
		return nil
	})
	if err != nil {
		return err
	}
	return f.picture(cmd, &seen, last)
}

func (f *traceFlags) picture(cmd *cobra.Command, seen *timeline.Timeline, end time.Time) error {
	var data bytes.Buffer
	if err := seen.Write(&data, end); err != nil {
		return err
	}
	if isStandardOutput(f.output) {
		_, err := data.WriteTo(cmd.OutOrStdout())
		return err
	}
	if err := writeWhole(context.WithoutCancel(cmd.Context()), f.output, data.Bytes()); err != nil { // ctrl-C has ended the listening alone
		return err
	}
	fmt.Fprintf(talk(cmd, f.record), "%s  %v; open it at https://ui.perfetto.dev\n", f.output, seen)
	return nil
}

// readRecording hands every message of a file to each, until ctx ends.
func readRecording(ctx context.Context, path string, each func(line int, news *triptychv1alpha1.WatchResidencyResponse) error) error {
	file, err := openFile("from", path)
	if err != nil {
		return err
	}
	defer file.Close()
	err = recording.Read(file, func(line int, news *triptychv1alpha1.WatchResidencyResponse) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return each(line, news)
	})
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
