//go:build linux

package e2e

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
)

// TestLog: every line is JSON where that is asked for, and those about a request carry its id, in all processes.
func TestLog(t *testing.T) {
	s := up(t, "--log-format", "json", "--log-level", "debug")
	events, err := s.generate(t.Context(), &triptychv1alpha1.GenerationSpec{Prompt: "fox", Steps: ptr(int32(1))}, nil)
	if err != nil {
		t.Fatal(err)
	}
	id := events[0].GetAccepted().GetRequestId()
	s.stop(t)
	var told []string
	for line := range strings.Lines(s.log.String()) {
		var record struct{ Level, Msg, Request, Action, Method, Service string }
		if err := json.Unmarshal([]byte(line), &record); err != nil || record.Level == "" || record.Msg == "" {
			t.Errorf("%q is no record: %v", line, err)
		}
		if record.Request != "" && record.Request != id {
			t.Errorf("another request: %s", line)
		}
		what := strings.Join(strings.Fields(record.Msg+" "+record.Action+" "+record.Method), " ")
		if record.Method != "" {
			what += " of the " + record.Service
		}
		if record.Request != "" && !slices.Contains(told, what) {
			told = append(told, what)
		}
	}
	const work = "call /triptych.stage.v1alpha1.WorkService/Work of the "
	for _, want := range []string{
		"accepted", "completed", "residency reserve", "residency load", "residency grant", "residency release",
		work + "encoder", work + "denoiser", work + "decoder",
	} {
		if !slices.Contains(told, want) {
			t.Errorf("no line %q carries the request: %q", want, told)
		}
	}
}
