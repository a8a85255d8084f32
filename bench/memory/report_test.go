package main

import (
	"strings"
	"testing"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
)

// TestCheck: a row that does not show what its scenario is for is an error.
func TestCheck(t *testing.T) {
	good := row{Picture: "a", LedgerPeak: 80, PlannedPeak: 80, PlannedAll: 120, Evictions: 1, StreamedBytes: 1}
	same := scenario{budget: 100, evicts: true, streams: true, as: "first"}
	for says, c := range map[string]struct {
		scenario scenario
		change   func(*row)
	}{
		"":                           {same, func(*row) {}},
		"was refused: MODEL":         {same, func(r *row) { r.Refused = "MODEL_DOES_NOT_FIT" }},
		"101 bytes were taken":       {same, func(r *row) { r.LedgerPeak = 101 }},
		"the plan takes 101 bytes":   {same, func(r *row) { r.PlannedPeak = 101 }},
		"nothing was evicted":        {same, func(r *row) { r.Evictions = 0 }},
		"or streamed":                {same, func(r *row) { r.StreamedBytes = 0 }},
		"the picture is another":     {same, func(r *row) { r.Picture = "b" }},
		"it was to be refused":       {scenario{budget: 100, pinned: true}, func(*row) {}},
		"90 bytes for all of it":     {scenario{budget: 100, pinned: true}, func(r *row) { r.Refused, r.PlannedAll = "MODEL_DOES_NOT_FIT", 90 }},
		`it ended with "DEVICE_BUSY`: {scenario{budget: 100, pinned: true}, func(r *row) { r.Refused = "DEVICE_BUSY" }},
	} {
		now := good
		c.change(&now)
		r := report{Rows: []row{{Name: "first", Picture: "a"}, now}}
		if err := r.check(c.scenario, now); (err == nil) != (says == "") || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want it to say %q", err, says)
		}
	}
}

// TestLedger counts loads that have ended, and evictions whose bytes are back.
func TestLedger(t *testing.T) {
	var l ledger
	for _, e := range []*triptychv1alpha1.ResidencyEvent{
		{Action: triptychv1alpha1.ResidencyEvent_ACTION_LOAD, Bytes: 7, UsedBytes: 10},
		{Action: triptychv1alpha1.ResidencyEvent_ACTION_LOADED, Bytes: 7, UsedBytes: 10},
		{Action: triptychv1alpha1.ResidencyEvent_ACTION_EVICT, Bytes: 7, UsedBytes: 10},
		{Action: triptychv1alpha1.ResidencyEvent_ACTION_RELEASE, Class: triptychv1alpha1.ResidencyEvent_CLASS_EVICTED, Bytes: 7, UsedBytes: 3},
	} {
		l.add(e)
	}
	if l.peak != 10 || l.loads != 1 || l.loaded != 7 || l.evictions != 1 {
		t.Errorf("%+v", l)
	}
}

// TestScenarios: a scenario whose picture another one is to make comes behind it.
func TestScenarios(t *testing.T) {
	before := map[string]bool{"": true}
	for _, s := range (options{side: 1024, small: 512}).scenarios() {
		if !before[s.as] {
			t.Errorf("%s is compared with %s, which comes later", s.name, s.as)
		}
		before[s.name] = true
	}
}
