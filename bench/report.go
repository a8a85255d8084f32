package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/triptych-serving/triptych/bench/kernels"
	"github.com/triptych-serving/triptych/bench/limits"
	"github.com/triptych-serving/triptych/bench/networks"
)

// report is all that a run tells.
type report struct {
	Date        string             `json:"date"`
	Arguments   []string           `json:"arguments"`
	Machine     limits.Machine     `json:"machine"`
	Versions    map[string]string  `json:"versions"`
	Environment map[string]string  `json:"environment,omitempty"`
	Threads     int                `json:"threads"`
	Limits      limits.Limits      `json:"limits"`
	Kernels     []kernels.Row      `json:"kernels,omitempty"`
	Networks    []networks.Row     `json:"networks,omitempty"`
	Start       *networks.StartRow `json:"start,omitempty"`
	Loads       []networks.LoadRow `json:"loads,omitempty"`
}

func (r *report) write(path string) error {
	data, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	if err := os.WriteFile(path, append(data, '\n'), 0o600); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "written to", path)
	return nil
}

// printTable prints the tables of a report that was written before.
func printTable(args []string) error {
	if len(args) != 1 {
		return errUsage
	}
	data, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	var r report
	if err := json.Unmarshal(data, &r); err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	fmt.Print(r.markdown())
	return nil
}
