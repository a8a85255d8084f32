// Command goals holds a report to its goals. `make bench-residency` has one of `triptych simulate`: the memory policy's reload seconds
// beside those of other policies, of the least there could have been, and of the best that can be expected without knowing the
// jobs to come; docs/residency.md explains the columns. Of one of bench it takes the networks that have goals.
//
//	go run ./bench/goals REPORT
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "goals:", err)
		os.Exit(1)
	}
}

func run(args []string, w io.Writer) error {
	if len(args) != 1 {
		return fmt.Errorf("expected a report of `triptych simulate --report REPORT` or of bench, got %d arguments", len(args))
	}
	text, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		list, err := readNetworks(text)
		if err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		return writeNetworks(w, list)
	}
	rows, err := read(text)
	if err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	return write(w, rows)
}

// read reads a report. With warm memory there is no oracle to compare with.
func read(text []byte) ([]row, error) {
	var rows []row
	if err := json.Unmarshal(text, &rows); err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, errors.New("expected at least one trace")
	}
	for _, r := range rows {
		if r.WarmBytes > 0 {
			return nil, fmt.Errorf("%s, budget %s: expected a run without --warm-memory, of which there is no oracle", r.Trace, r.Budget)
		}
	}
	return rows, nil
}
