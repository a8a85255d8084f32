package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/triptych-serving/triptych/engine/device/devices"
	"github.com/triptych-serving/triptych/orchestrator/fleet"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stageengine"
)

func modelsCommand() *cobra.Command {
	var (
		dirs     []string
		identity bool
	)
	cmd := &cobra.Command{
		Use:   "models",
		Short: "List the models that are there, with the bytes of each stage",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			library, err := openLibrary(dirs...)
			if err != nil {
				return err
			}
			infos, err := inspect(cmd.Context(), library)
			if err != nil {
				return usageError{err}
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			header := "MODEL\tENCODER\tDENOISER\tDECODER\tSIZE\tSAMPLER\tPROBLEM"
			if identity {
				header = "MODEL\tENCODER\tDENOISER\tDECODER\tSIZE\tSAMPLER\tIDENTITIES\tPROBLEM"
			}
			fmt.Fprintln(w, header)
			var warnings []string
			for m, c := range infos[0].Models {
				name := c.Model
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
				factor := decoder.SpatialFactor
				row = append(row, fmt.Sprintf("%dx%d", denoiser.LatentDefaultWidth*factor, denoiser.LatentDefaultHeight*factor), denoiser.DefaultSampler)
				if identity && problem == "" {
					shown, err := identities(cmd.Context(), library, name)
					if err != nil {
						problem = err.Error()
					}
					row = append(row, shown)
				} else if identity {
					row = append(row, "")
				}
				row = append(row, problem)
				fmt.Fprintln(w, strings.Join(row, "\t"))
			}
			if err := w.Flush(); err != nil {
				return err
			}
			return printWarnings(cmd.OutOrStdout(), warnings)
		},
	}
	modelsFlag(cmd.Flags(), &dirs)
	cmd.Flags().BoolVar(&identity, "identity", false, "read all weights and tell what they are known by, in the order of the stages: equal on machines that have the same")
	return cmd
}

// identities reads a model and gives those of its parts, in short.
func identities(ctx context.Context, library *stageengine.Library, model string) (string, error) {
	device, err := devices.Plan(defaultDevice, devices.Options{})
	if err != nil {
		return "", err
	}
	of, err := stageengine.Identities(ctx, stageengine.Options{Library: library, Device: device}, model)
	if err != nil {
		return "", err
	}
	var shown []string
	for _, kind := range stage.Kinds() {
		shown = append(shown, stage.Edition{Identity: of[kind]}.Short())
	}
	return strings.Join(shown, " "), nil
}

// inspect gives what each stage knows of the models of a library, without loading any.
func inspect(ctx context.Context, library *stageengine.Library) (infos []stage.Info, err error) {
	device, err := devices.Plan(defaultDevice, devices.Options{})
	if err != nil {
		return nil, err
	}
	o := stageengine.Options{Library: library, Device: device}
	for _, s := range []stage.Resident{stageengine.NewEncoder(o), stageengine.NewDenoiser(o), stageengine.NewDecoder(o)} {
		info, err := s.Info(ctx)
		if err != nil {
			return nil, err
		}
		if len(infos) > 0 && !slices.EqualFunc(info.Models, infos[0].Models, func(a, b stage.Component) bool { return a.Model == b.Model }) {
			return nil, errors.New("models were added or removed while they were looked at")
		}
		infos = append(infos, info)
	}
	return infos, nil
}

// exampleModel gives a model of those that stages know which can be used, for an example: it is empty where an example
// needs to name none, as the only one that can be used is the default. ok is false where none can be used.
func exampleModel(infos []stage.Info) (model string, ok bool) {
	var usable []string
	for m, c := range infos[0].Models {
		if !slices.ContainsFunc(infos, func(i stage.Info) bool { return i.Models[m].Problem != "" }) {
			usable = append(usable, c.Model)
		}
	}
	switch {
	case len(usable) == 0:
		return "", false
	case slices.Contains(usable, fleet.DefaultModel):
		model = fleet.DefaultModel
	default:
		model = usable[0]
	}
	if len(infos[0].Models) == 1 {
		model = ""
	}
	return model, true
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
