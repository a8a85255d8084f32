package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/triptych-serving/triptych/internal/fetch"
)

// tokenEnv is where the bearer token of gated models comes from, which no command line should have.
const tokenEnv = "TRIPTYCH_FETCH_TOKEN"

func fetchCommand() *cobra.Command {
	var (
		manifest, into string
		only           []string
		verify         bool
	)
	cmd := &cobra.Command{
		Use:   "fetch --manifest FILE --into DIR",
		Short: "Download models, checked by SHA-256",
		Long: `Download the models of a manifest into a folder that --models of other commands can name. A manifest is JSON:

  {"models": [{"name": "sd15", "files": [
    {"path": "unet/diffusion_pytorch_model.safetensors", "url": "https://…", "sha256": "…", "size": 3438167540}]}]}

where size, in bytes, may be left out. Each file is checked by its SHA-256, and a model is in its place when all of it is there. What
was interrupted goes on where it stopped when the command is run again, and of several at once on one folder one works and the others
wait. A bearer token for https can be given as $` + tokenEnv + `; proxies as $HTTPS_PROXY and $NO_PROXY.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if manifest == "" || into == "" {
				return usageError{errors.New("expected --manifest FILE and --into DIR")}
			}
			m, err := readManifest(cmd.InOrStdin(), manifest)
			if err != nil {
				return err
			}
			if len(only) > 0 {
				if m, err = m.Only(only); err != nil {
					return err
				}
			}
			progress := newTransfer(cmd)
			defer progress.close()
			return fetch.Run(cmd.Context(), m, fetch.Options{Into: into, Token: os.Getenv(tokenEnv), Verify: verify, Progress: progress})
		},
	}
	cmd.Flags().StringVar(&manifest, "manifest", "", "file that says which files make which models, and where they are; - is standard input")
	cmd.Flags().StringVar(&into, "into", "", "folder of models, made if it is not there")
	cmd.Flags().StringSliceVar(&only, "model", nil, "models of the manifest to fetch, separated by commas; all without")
	verifyFlag(cmd.Flags(), &verify)
	completeBy(cmd, "model", cobra.NoFileCompletions)
	return cmd
}

// readManifest reads a manifest from a file or standard input. Errors are bad usage.
func readManifest(stdin io.Reader, path string) (fetch.Manifest, error) {
	in := stdin
	if path != "-" {
		file, err := openFile("manifest", path)
		if err != nil {
			return fetch.Manifest{}, err
		}
		defer file.Close()
		in = file
	}
	data, err := io.ReadAll(io.LimitReader(in, fetch.MaxManifest+1))
	if err != nil {
		return fetch.Manifest{}, usageError{fmt.Errorf("--manifest %s: %w", path, err)}
	}
	m, err := fetch.Parse(data)
	if err != nil {
		err = fmt.Errorf("--manifest %s: %w", path, err)
	}
	return m, err
}
