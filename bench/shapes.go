package main

import (
	"encoding/json"
	"os"
	"strings"

	"github.com/triptych-serving/triptych/bench/kernels"
)

// writeShapes records the operations of the networks in bench/configs as bench/kernels/shapes.json, an entry a line.
func writeShapes(path string) error {
	list, err := kernels.Record()
	if err != nil {
		return err
	}
	lines := make([]string, len(list))
	for i, e := range list {
		line, err := json.Marshal(e)
		if err != nil {
			return err
		}
		lines[i] = string(line)
	}
	text := "[\n" + strings.Join(lines, ",\n") + "\n]\n"
	return os.WriteFile(path, []byte(text), 0o600)
}
