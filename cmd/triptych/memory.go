package main

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
)

// memoryFlags say what stays in memory, to `up` and `orchestrator`.
type memoryFlags struct {
	offload string
	policy  residency.Policy
	flags   *pflag.FlagSet
}

// selectors is a flag that may be repeated.
type selectors struct{ to *[]residency.Selector }

func (s selectors) String() string {
	var out []string
	if s.to != nil {
		for _, one := range *s.to {
			out = append(out, one.String())
		}
	}
	return strings.Join(out, ",")
}

func (s selectors) Set(text string) error {
	for one := range strings.SplitSeq(text, ",") {
		selector, err := residency.ParseSelector(one)
		if err != nil {
			return err
		}
		*s.to = append(*s.to, selector)
	}
	return nil
}

func (selectors) Type() string { return "STAGE[:MODEL]" }

// The modes of --offload, and the watermarks of balanced.
const (
	offloadNone     = "none"
	offloadBalanced = "balanced"
	offloadModel    = "model"

	balancedLow, balancedHigh = 0.25, 0.7
)

func (f *memoryFlags) add(flags *pflag.FlagSet) {
	f.flags = flags
	p := &f.policy
	flags.StringVar(&f.offload, "offload", offloadNone, "what is evicted though nobody needs its room: none; balanced, which is --low-watermark 0.25 --high-watermark 0.7; or model, which is --evict-after-use for every stage")
	flags.Var(selectors{&p.Never}, "pin", "stage that is never evicted once it is loaded, of one model or of all; may be repeated")
	flags.Var(selectors{&p.AfterUse}, "evict-after-use", "stage that is evicted after each use, of one model or of all; may be repeated")
	flags.DurationVar(&p.MinResidency, "min-residency", 0, "how long a stage stays after its load, unless a request has waited for so long")
	flags.DurationVar(&p.IdleTTL, "idle-ttl", 0, "how long a stage stays that nobody uses; without end at 0")
	flags.Float64Var(&p.LowWatermark, "low-watermark", 0, "part of the memory budget down to which idle stages are evicted once more than --high-watermark is in use")
	flags.Float64Var(&p.HighWatermark, "high-watermark", 0, "part of the memory budget beyond which idle stages are evicted, such as 0.7; none at 0")
	flags.Float64Var(&p.WaitFactor, "wait-factor", 2, "how many times as many turns as in strict order a request may wait while others go first that find their weights in memory; 1 is strict order")
}

// parse is what the flags say.
func (f *memoryFlags) parse() (residency.Policy, error) {
	p := f.policy
	switch f.offload {
	case offloadNone:
	case offloadBalanced:
		if !f.flags.Changed("high-watermark") {
			p.HighWatermark = balancedHigh
		}
		if !f.flags.Changed("low-watermark") {
			p.LowWatermark = min(balancedLow, p.HighWatermark)
		}
	case offloadModel:
		for _, kind := range stage.Kinds() {
			p.AfterUse = append(p.AfterUse, residency.Selector{Kind: kind})
		}
	default:
		return p, usageError{fmt.Errorf("--offload %q: expected none, balanced or model", f.offload)}
	}
	if p.WaitFactor == 0 {
		return p, usageError{fmt.Errorf("--wait-factor 0: expected 1 to 1000")}
	}
	if err := p.Check(); err != nil {
		return p, usageError{err}
	}
	return p, nil
}

// args are the flags as they were given, for another process.
func (f *memoryFlags) args() (args []string) {
	for _, name := range []string{"offload", "pin", "evict-after-use", "min-residency", "idle-ttl", "low-watermark", "high-watermark", "wait-factor"} {
		if f.flags.Changed(name) {
			args = append(args, "--"+name, f.flags.Lookup(name).Value.String())
		}
	}
	return args
}
