package main

import (
	"log/slog"

	"github.com/spf13/pflag"

	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/internal/release"
	"github.com/triptych-serving/triptych/stage"
)

// releaseFlags say when the process of a stage gives back memory that it keeps for later.
type releaseFlags struct {
	threshold perStage[int] // percent
	lowMemory perStage[release.Override]
}

func (f *releaseFlags) add(flags *pflag.FlagSet) {
	f.threshold = perStage[int]{name: "release-threshold", kind: "PERCENT", parse: release.ParseThreshold}
	f.lowMemory = perStage[release.Override]{name: "low-memory", kind: "auto|on|off", parse: release.ParseOverride}
	flags.Var(&f.threshold, f.threshold.name, "how full the memory of a stage's device must be for the stage to give back behind each piece of work what it keeps for the next, in percent; at 0 it always does (default 80)")
	flags.Var(&f.lowMemory, f.lowMemory.name, "whether a stage does so whatever the threshold; auto is on where the budget or the machine has 4 GiB or less (default auto)")
}

// args are the flags for the process of a stage.
func (f *releaseFlags) args(kind stage.Kind) []string {
	return append(f.threshold.args(kind), f.lowMemory.args(kind)...)
}

// only refuses a value for another stage than the one that is served.
func (f *releaseFlags) only(served stage.Kind) error {
	if err := f.threshold.only(served); err != nil {
		return err
	}
	return f.lowMemory.only(served)
}

// collector gives back the memory of the process of a stage on d.
func (f *releaseFlags) collector(kind stage.Kind, d device.Device, log *slog.Logger) *release.Collector {
	policy := release.Policy{ThresholdPercent: release.DefaultThreshold, LowMemory: release.Auto}
	if percent, ok := f.threshold.values[kind]; ok {
		policy.ThresholdPercent = percent
	}
	if o, ok := f.lowMemory.values[kind]; ok {
		policy.LowMemory = o
	}
	host := release.NewHost()
	return release.New(release.Options{Policy: policy, Device: d.Name(), Logger: log, Read: func() release.Reading {
		m := d.Memory()
		r := release.Reading{LedgerUsed: m.UsedBytes, LedgerCap: m.CapBytes, Refused: m.Refused}
		host.Read(&r)
		return r
	}})
}
