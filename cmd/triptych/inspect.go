package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/triptych-serving/triptych/engine/imaging"
)

// inspected is what `triptych inspect --json` prints.
type inspected struct {
	Format     string `json:"format"`
	Width      int    `json:"width"`
	Height     int    `json:"height"`
	Bytes      int    `json:"bytes"`
	Parameters string `json:"parameters"` // empty if the file has none
}

// inspectCommand tells what a picture is and how it was made.
func inspectCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "inspect FILE",
		Short: "Tell the size of a picture and the settings it was made with",
		Long: `Tell format and size of a PNG, JPEG or WebP, and the settings that Triptych or another program has written into it. The whole picture is
decoded: of one that is cut off or damaged a sentence says so, and the exit code is 1. FILE - is standard input.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{fmt.Errorf("expected one picture, got %d arguments", len(args))}
			}
			return nil
		},
		ValidArgsFunction: files("png", "jpg", "jpeg", "webp"),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := readPicture(cmd.InOrStdin(), args[0])
			if err != nil {
				return err
			}
			info, err := imaging.Inspect(data)
			if wrong := (*imaging.Error)(nil); errors.As(err, &wrong) {
				return fmt.Errorf("%s: %s: expected %s, got %s", args[0], wrong.Subject, wrong.Expected, wrong.Got)
			}
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(inspected{info.Format.String(), info.Width, info.Height, len(data), info.Parameters})
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s %dx%d\n", info.Format, info.Width, info.Height)
			if err == nil && info.Parameters != "" {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), info.Parameters)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// readPicture reads a file, or standard input, as far as pictures are read. A file that is not there is bad usage.
func readPicture(stdin io.Reader, path string) ([]byte, error) {
	in := stdin
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, usageError{err}
		}
		defer file.Close()
		in = file
	}
	return io.ReadAll(io.LimitReader(in, imaging.MaxBytes+1))
}
