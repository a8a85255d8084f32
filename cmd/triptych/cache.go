package main

import (
	"errors"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/triptych-serving/triptych/internal/modelcache"
)

func cacheCommand() *cobra.Command {
	var (
		o     modelcache.Options
		limit byteSize
	)
	cmd := &cobra.Command{
		Use:   "cache --from DIR --into DIR",
		Short: "Copy models from a slow folder to a fast one of this node",
		Long: `Copy models from a slow folder, such as a network volume, to a fast one of this node that --models of the services can name. Of
several at once on one folder one copies and the others wait; what was interrupted goes on behind the last file that was complete; a
model is in its place when all of it is there, with the SHA-256 of its files. What has changed in the slow folder is copied again: by
SHA-256 where 'triptych fetch' put it there, else by sizes and times. With --limit, models that were not used for longest are removed
first, but for those that a service serves and those that were asked for within the last 15 minutes.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.From == "" || o.Into == "" {
				return usageError{errors.New("expected --from DIR and --into DIR")}
			}
			progress := newTransfer(cmd)
			defer progress.close()
			o.Limit, o.Progress = int64(limit), progress
			return modelcache.Run(cmd.Context(), o)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.From, "from", "", "folder of models, or a model; it may be read-only")
	flags.StringVar(&o.Into, "into", "", "folder of models, made if it is not there")
	flags.StringSliceVar(&o.Models, "model", nil, "models to copy, separated by commas; all without")
	flags.Var(&limit, "limit", "bytes that the models in the fast folder may have together, such as 200GiB; no limit without")
	verifyFlag(flags, &o.Verify)
	completeBy(cmd, "from", folders)
	completeBy(cmd, "model", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		var names []string
		for _, path := range modelPaths([]string{o.From}) {
			names = append(names, filepath.Base(path))
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	})
	return cmd
}
