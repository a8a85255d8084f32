package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/triptych-serving/triptych/internal/top"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
)

func topCommand() *cobra.Command {
	var server serverFlags
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Show who is in memory, who works and why, until q or ctrl-C; off a terminal, a line for each decision",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if term.IsTerminal(int(os.Stdout.Fd())) {
				return showTop(cmd, &server, os.Stdout)
			}
			return server.watch(cmd.Context(), false, func(news *triptychv1alpha1.WatchResidencyResponse) error {
				line := top.Line(news, time.Local)
				if line == "" {
					return nil
				}
				_, err := fmt.Fprintln(cmd.OutOrStdout(), line)
				return err
			})
		},
	}
	server.add(cmd.Flags(), defaultListen, "address of the orchestrator to look at")
	return cmd
}

// showTop takes over the terminal once the server has answered.
func showTop(cmd *cobra.Command, server *serverFlags, out *os.File) error {
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	answered, news, done := make(chan struct{}), make(chan *triptychv1alpha1.WatchResidencyResponse), make(chan error, 1)
	go func() {
		first := true
		err := server.watch(ctx, true, func(n *triptychv1alpha1.WatchResidencyResponse) error {
			if first {
				first = false
				close(answered)
			}
			select {
			case news <- n:
			case <-ctx.Done():
			}
			return nil
		})
		close(news)
		done <- err
	}()
	select {
	case <-answered:
	case err := <-done:
		return err
	}
	err := top.Run(ctx, cmd.InOrStdin(), out, server.address, news)
	cancel()
	return errors.Join(err, <-done)
}
