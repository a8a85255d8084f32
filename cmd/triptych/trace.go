package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/triptych-serving/triptych/internal/timeline"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
)

func traceCommand() *cobra.Command {
	var (
		server serverFlags
		output string
		last   time.Duration
	)
	cmd := &cobra.Command{
		Use:     "trace",
		Short:   "Record who is in memory and who works, as a timeline for https://ui.perfetto.dev",
		Example: "  triptych trace -o trace.json --for 30s",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("for") && last <= 0 {
				return usageError{fmt.Errorf("--for %v: expected a time above 0, such as 30s", last)}
			}
			name, err := probe(output)
			if err != nil {
				return err
			}
			if err := os.Remove(name); err != nil {
				return err
			}
			return trace(cmd, &server, output, last)
		},
	}
	flags := cmd.Flags()
	server.add(flags, defaultListen, "address of the orchestrator to listen to")
	flags.StringVarP(&output, "output", "o", "trace.json", "file to write")
	flags.DurationVar(&last, "for", 0, "how long to listen (default: until ctrl-C)")
	return cmd
}

// trace listens until it is interrupted, the time is over or the server ends, and writes what it heard.
// The last of these is an error, after the file is written.
func trace(cmd *cobra.Command, server *serverFlags, output string, last time.Duration) error {
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	var (
		seen  timeline.Timeline
		heard time.Time // here, when the server made the last news
		made  time.Time // there
	)
	err := server.watch(ctx, false, func(news *triptychv1alpha1.WatchResidencyResponse) error {
		if heard.IsZero() {
			fmt.Fprintf(cmd.ErrOrStderr(), "listening to %s; ctrl-C writes %s\n", server.address, output)
			if last > 0 {
				time.AfterFunc(last, cancel)
			}
		}
		heard, made = time.Now(), news.GetDecision().GetEvent().GetTime().AsTime()
		if s := news.GetSnapshot(); s != nil {
			made = s.GetTime().AsTime()
		}
		seen.Add(news)
		return nil
	})
	if heard.IsZero() {
		return err // nothing to write
	}
	var data bytes.Buffer
	if err := seen.Write(&data, made.Add(time.Since(heard))); err != nil {
		return err
	}
	if writeErr := writeWhole(output, data.Bytes()); writeErr != nil {
		return errors.Join(err, writeErr)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s  %v; open it at https://ui.perfetto.dev\n", output, &seen)
	return err
}
