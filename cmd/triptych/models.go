package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/triptych-serving/triptych/engine/device/cpu"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stageengine"
)

func modelsCommand() *cobra.Command {
	var dirs []string
	cmd := &cobra.Command{
		Use:   "models",
		Short: "List the models that are there, with the bytes of each stage",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			library, err := stageengine.OpenLibrary(dirs...)
			if err != nil {
				return usageError{err}
			}
			device, err := cpu.New(cpu.Options{})
			if err != nil {
				return usageError{err}
			}
			defer device.Close() //nolint:errcheck // nothing was loaded
			o := stageengine.Options{Library: library, Device: device}
			stages := []stage.Resident{stageengine.NewEncoder(o), stageengine.NewDenoiser(o), stageengine.NewDecoder(o)}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "MODEL\tENCODER\tDENOISER\tDECODER\tSIZE\tSAMPLER\tPROBLEM")
			infos := make([]stage.Info, len(stages))
			for i, s := range stages {
				if infos[i], err = s.Info(cmd.Context()); err != nil {
					return err
				}
			}
			var warnings []string
			for m, name := range library.Names() {
				row := []string{name}
				problem := ""
				for _, info := range infos {
					c := info.Models[m]
					row = append(row, humanize.IBytes(uint64(c.WeightsBytes)))
					if problem == "" {
						problem = c.Problem
					}
					for _, warning := range c.Warnings {
						warnings = append(warnings, name+"/"+warning)
					}
				}
				denoiser, decoder := infos[1].Models[m], infos[2].Models[m]
				side := denoiser.LatentDefault * decoder.SpatialFactor
				row = append(row, fmt.Sprintf("%dx%d", side, side), denoiser.DefaultSampler, problem)
				fmt.Fprintln(w, strings.Join(row, "\t"))
			}
			if err := w.Flush(); err != nil {
				return err
			}
			return printWarnings(cmd.OutOrStdout(), warnings)
		},
	}
	modelsFlag(cmd.Flags(), &dirs)
	return cmd
}

// printWarnings prints what is odd about weights that are used all the same, behind a table.
func printWarnings(w io.Writer, warnings []string) error {
	for i, warning := range warnings {
		if i == 0 {
			fmt.Fprintln(w)
		}
		if _, err := fmt.Fprintln(w, "warning: "+warning); err != nil {
			return err
		}
	}
	return nil
}
