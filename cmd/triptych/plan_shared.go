package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/triptych-serving/triptych/orchestrator/residency/simulate"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stageengine"
)

// sharedPart is a part that models have in common, which is loaded once for all of them, in the name of the first.
type sharedPart struct {
	Stage  string   `json:"stage"`
	Models []string `json:"models"`
}

// sharing is which model's part serves another's, where that is not its own.
type sharing map[simulate.Component]string

// of is the model whose part serves a model in a kind of stage.
func (s sharing) of(model string, kind stage.Kind) string {
	return cmp.Or(s[simulate.Component{Kind: kind, Model: model}], model)
}

// compare finds the equal parts of the models whose weights are there, and names the others. What takes a while is told to w.
func compare(ctx context.Context, o stageengine.Options, models []modelPlan, w io.Writer) (parts sharing, shared []sharedPart, others []string, err error) {
	var there []string
	for _, m := range models {
		if m.Runs && m.WeightsPresent {
			there = append(there, m.Model)
		} else {
			others = append(others, m.Model)
		}
	}
	equal, err := stageengine.EqualParts(ctx, o, there, comparing(w))
	if err != nil {
		return nil, nil, nil, err
	}
	parts = sharing{}
	for _, e := range equal {
		shared = append(shared, sharedPart{e.Kind.String(), e.Models})
		for _, name := range e.Models[1:] {
			parts[simulate.Component{Kind: e.Kind, Model: name}] = e.Models[0]
		}
	}
	return parts, shared, others, nil
}

// comparing tells every second how much has been read.
func comparing(w io.Writer) func(read, all int64) {
	told := time.Now()
	return func(read, all int64) {
		if now := time.Now(); now.Sub(told) >= time.Second {
			told = now
			fmt.Fprintf(w, "comparing the models' parts: %s of %s read\n", size(read), size(all))
		}
	}
}

// printShared tells what is counted once.
func (t *togetherPlan) printShared(w io.Writer) {
	var parts []string
	for _, s := range t.Shared {
		parts = append(parts, fmt.Sprintf("%s of %s", s.Stage, strings.Join(s.Models, ", ")))
	}
	if len(parts) > 0 {
		fmt.Fprintf(w, "Shared, being equal: %s.\n", strings.Join(parts, "; "))
	}
	if len(t.NotCompared) > 0 {
		fmt.Fprintf(w, "Not compared, and counted as different, for want of weights or of a pipeline that runs: %s.\n", strings.Join(t.NotCompared, ", "))
	}
}
