package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/triptych-serving/triptych/engine/device/devices"
	"github.com/triptych-serving/triptych/families"
	"github.com/triptych-serving/triptych/orchestrator/api"
	"github.com/triptych-serving/triptych/orchestrator/fleet"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stageengine"
)

// modelsFlags are what `triptych models` is told.
type modelsFlags struct {
	dirs             []string
	vaes             vaeFiles
	identity, asJSON bool
}

func modelsCommand() *cobra.Command {
	var f modelsFlags
	cmd := &cobra.Command{
		Use:   "models [MODEL...]",
		Short: "List the models that are there, with the bytes of each stage, or tell what some can be asked",
		Long: `List the models that are there, with the bytes that each stage needs for an image from a prompt. Of models that
are named, tell the files and options that a request may have: those without a flag of 'triptych generate' are set by
--option NAME=VALUE.`,
		ValidArgsFunction: completeAll,
		RunE: func(cmd *cobra.Command, args []string) error {
			library, err := openLibrary(f.vaes, f.dirs...)
			if err != nil {
				return err
			}
			models, err := f.list(cmd.Context(), library, args)
			if err != nil {
				return err
			}
			w := cmd.OutOrStdout()
			switch {
			case f.asJSON:
				return printModelsJSON(w, models)
			case len(args) > 0:
				err = printTasks(w, models)
			default:
				err = f.print(w, models)
			}
			if err != nil {
				return err
			}
			var warnings []string
			for _, m := range models {
				for _, warning := range m.Warnings {
					warnings = append(warnings, m.Name+"/"+warning)
				}
			}
			return printWarnings(w, warnings)
		},
	}
	modelsFlag(cmd.Flags(), &f.dirs)
	f.vaes.add(cmd.Flags())
	cmd.Flags().BoolVar(&f.identity, "identity", false, "read all weights and tell what they are known by, in the order of the stages: equal on machines that have the same")
	cmd.Flags().BoolVar(&f.asJSON, "json", false, "print JSON, as the public API's ListModels has it")
	return cmd
}

// list asks the stages for models, all where none is named. Nothing is loaded but for identities.
func (f *modelsFlags) list(ctx context.Context, library *stageengine.Library, names []string) (models []fleet.Model, err error) {
	for _, name := range names {
		if !slices.Contains(library.Names(), name) {
			return nil, stage.NoSuchModel(name, library.Names())
		}
	}
	device, err := devices.Plan(defaultDevice, devices.Options{})
	if err != nil {
		return nil, err
	}
	o := stageengine.Options{Library: library, Families: families.All(), Device: device}
	var infos []stage.Info
	for _, kind := range stage.Kinds() {
		info, err := stageengine.New(kind, o).Info(ctx)
		if err != nil {
			return nil, err
		}
		infos = append(infos, info)
	}
	models = slices.DeleteFunc(fleet.Catalog(infos), func(m fleet.Model) bool { return len(names) > 0 && !slices.Contains(names, m.Name) })
	for i := range models {
		m := &models[i]
		if !f.identity || m.Problem != nil {
			continue
		}
		of, err := stageengine.Identities(ctx, o, m.Name)
		if err != nil {
			m.Problem = stage.Errorf(stage.ModelInvalid, "%w", err)
		}
		for k, c := range m.Components {
			m.Components[k].Identity = of[c.Name]
		}
	}
	return models, nil
}

// print writes a table of models.
func (f *modelsFlags) print(w io.Writer, models []fleet.Model) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	header := "MODEL\tKIND\tENCODER\tDENOISER\tDECODER\tSIZE\tSAMPLER\tTAKES\t"
	if f.identity {
		header += "IDENTITIES\t"
	}
	fmt.Fprintln(t, header+"PROBLEM")
	for _, model := range models {
		m := api.ModelProto(model)
		row := []string{m.GetName(), cmp.Or(m.GetAdapter(), "model")}
		for _, s := range m.GetStages() {
			row = append(row, humanize.IBytes(uint64(s.GetWeightsBytes())))
		}
		var identities []string
		size := fmt.Sprintf("%dx%d", m.GetDefaultWidthPx(), m.GetDefaultHeightPx())
		if m.GetDefaultWidthPx() == 0 {
			size = "-"
		}
		row = append(row, size, cmp.Or(m.GetDefaultSampler(), "-"), cmp.Or(strings.Join(takes(model), ", "), "-"))
		if f.identity {
			for _, s := range m.GetStages() {
				for of := range strings.SplitSeq(s.GetIdentity(), ",") {
					identities = append(identities, stage.Edition{Identity: of}.Short())
				}
			}
			row = append(row, strings.Join(identities, " "))
		}
		fmt.Fprintln(t, strings.Join(append(row, m.GetProblem()), "\t"))
	}
	return t.Flush()
}

// takes are the files that a model can begin with, but for those that are for adapters.
func takes(m fleet.Model) (names []string) {
	for _, r := range m.Recipes {
		for _, in := range r.Inputs {
			forAdapters := slices.ContainsFunc(r.Options, func(o stage.OptionSpec) bool { return slices.Contains(o.Inputs, in.Name) })
			if !forAdapters && !slices.Contains(names, in.Name) {
				names = append(names, in.Name)
			}
		}
	}
	return names
}

// printTasks writes what models can be asked.
func printTasks(w io.Writer, models []fleet.Model) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for i, m := range models {
		if i > 0 {
			fmt.Fprintln(t)
		}
		if m.Problem != nil {
			fmt.Fprintf(t, "%s cannot be used: %s\n", m.Name, m.Problem)
		}
		for _, r := range m.Recipes {
			fmt.Fprintf(t, "%s: %s\n\nINPUT\tTYPE\n", m.Name, r.Task)
			for _, in := range r.Inputs {
				fmt.Fprintf(t, "%s\t%s\n", in.Name, in.Media)
			}
			fmt.Fprint(t, "\nOPTION\tTYPE\tDEFAULT\tACCEPTED\n")
			for _, o := range r.Options {
				fmt.Fprintf(t, "%s\t%v\t%s\t%s\n", o.Name, o.Type, cmp.Or(o.Default.String(), "-"), o.Accepted())
			}
		}
	}
	return t.Flush()
}

// printModelsJSON writes models as the public API lists them.
func printModelsJSON(w io.Writer, models []fleet.Model) error {
	list := &triptychv1alpha1.ListModelsResponse{}
	for _, m := range models {
		list.Models = append(list.Models, api.ModelProto(m))
	}
	data, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(list)
	if err == nil {
		_, err = fmt.Fprintf(w, "%s\n", data)
	}
	return err
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
