package main

import (
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/triptych-serving/triptych/engine/sampler"
	"github.com/triptych-serving/triptych/families"
	"github.com/triptych-serving/triptych/planner"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stageengine"
)

// completions are what the flags of all commands take, by their names. Those that are not here take what nobody can guess,
// such as numbers and addresses.
func completions() map[string]cobra.CompletionFunc {
	all := map[string]cobra.CompletionFunc{
		"model":           completeModels,
		"upscaler":        completeAdapters("upscaler"),
		"hires-upscaler":  completeAdapters("upscaler"),
		"lora":            completeAdapters("lora"),
		"controlnet":      completeAdapters("controlnet"),
		"ip-adapter":      completeAdapters("ip_adapter"),
		"sampler":         oneOf(sampler.Names()...),
		"schedule":        oneOf(sampler.Schedules()...),
		"log-level":       oneOf(logLevels...),
		"log-format":      oneOf(logFormats...),
		"offload":         oneOf(offloadNone, offloadBalanced, offloadModel),
		"arrivals":        oneOf("poisson", "bursty"),
		"device":          oneOf(defaultDevice),
		"precision":       oneOf(ofStages("f32", "f16", "bf16", "int8", "int4")...),
		"compute":         oneOf(ofStages("f32", "bf16")...),
		"resident-bytes":  oneOf(ofStages("auto", "all")...),
		"low-memory":      oneOf(ofStages("auto", "on", "off")...),
		"pin":             completeSelectors,
		"evict-after-use": completeSelectors,
		"models":          folders,
		"device-claims":   folders,
		"into":            folders,
		"manifest":        files("json"),
		"vae":             files("safetensors", "ckpt", "pt", "pth", "bin"),
	}
	for _, name := range []string{"tls-cert", "tls-key", "tls-client-ca", "server-ca", "server-client-cert", "server-client-key", "stage-ca", "stage-client-cert", "stage-client-key"} {
		all[name] = files("pem", "crt", "key")
	}
	for _, name := range []string{"trace", "from", "record", "write-trace"} {
		all[name] = files("jsonl", "json")
	}
	for _, name := range []string{"init-image", "mask", "from-png", "control-image", "image-prompt"} {
		all[name] = files("png", "jpg", "jpeg", "webp")
	}
	all["report"], all["output"] = files("json"), files("png", "jpg", "jpeg", "webp", "json")
	return all
}

// complete gives all flags of a command and of those below it their completions, but for those that have their own.
func complete(cmd *cobra.Command, all map[string]cobra.CompletionFunc) {
	for _, below := range cmd.Commands() {
		complete(below, all)
	}
	if cmd.ValidArgsFunction == nil {
		cmd.ValidArgsFunction = cobra.NoFileCompletions
	}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if _, own := cmd.GetFlagCompletionFunc(f.Name); own {
			return
		}
		do := all[f.Name]
		if do == nil {
			do = cobra.NoFileCompletions
		}
		if err := cmd.RegisterFlagCompletionFunc(f.Name, do); err != nil {
			panic(err) // registered twice
		}
	})
}

func oneOf(values ...string) cobra.CompletionFunc {
	return cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)
}

func files(extensions ...string) cobra.CompletionFunc {
	return cobra.FixedCompletions(extensions, cobra.ShellCompDirectiveFilterFileExt)
}

// completeBy gives a flag of a command a completion of its own, where its name means something else than in other commands.
func completeBy(cmd *cobra.Command, flag string, do cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, do); err != nil {
		panic(err) // a misspelt name
	}
}

func folders(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveFilterDirs
}

// ofStages are values for all stages, and for each of them.
func ofStages(values ...string) []string {
	out := slices.Clone(values)
	for _, kind := range stage.Kinds() {
		for _, v := range values {
			out = append(out, kind.String()+"="+v)
		}
	}
	return out
}

// completeModels gives the names of the models that are there to draw with; where none begins so, the shell goes on with folders.
func completeModels(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return modelNames(cmd, ""), cobra.ShellCompDirectiveDefault
}

// completeAdapters gives the names of the models of a kind that options name.
func completeAdapters(kind string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return modelNames(cmd, kind), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeAll gives the names of all models.
func completeAll(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return modelNames(cmd, anyKind), cobra.ShellCompDirectiveDefault
}

// completeSelectors gives the stages, and those of each model.
func completeSelectors(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	var out []string
	for _, kind := range stage.Kinds() {
		out = append(out, kind.String())
		for _, model := range modelNames(cmd, anyKind) {
			out = append(out, kind.String()+":"+model)
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// anyKind is that of all models.
const anyKind = "*"

// modelNames are the models of a kind in the folders that the command line tells, none where they cannot be read. The kind is empty of
// those to draw with; what cannot be opened is among those.
func modelNames(cmd *cobra.Command, kind string) []string {
	flag := cmd.Flags().Lookup("models")
	if flag == nil {
		return nil
	}
	names := map[string]bool{}
	for dir := range slices.Values(*flag.Value.(*paths).to) {
		if library, err := stageengine.OpenLibrary(dir); err == nil {
			for _, name := range library.Names() {
				if kind == anyKind || planner.KindOf(families.All(), library, name) == kind {
					names[name] = true
				}
			}
		}
	}
	return slices.DeleteFunc(slices.Sorted(maps.Keys(names)), func(name string) bool { return strings.ContainsAny(name, "\t\n") })
}
