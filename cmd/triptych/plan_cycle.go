package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/triptych-serving/triptych/orchestrator/residency"
	"github.com/triptych-serving/triptych/stage"
)

// The rounds of a cycle: what is loaded for the first time is over after a few, and then everything repeats itself
// within a few.
const (
	warmRounds  = 8
	countRounds = 12
)

// cycle asks the ledger itself what it does while images are made one after another, of each model in turn: loads and
// evictions take no time, so that nothing but memory decides.
type cycle struct {
	machine *residency.Machine
	now     time.Time
	request residency.RequestID
	granted bool
	loads   map[string]int // by stage and model, in the rounds that count
	peak    int64
}

// newCycle plans models in turn under a budget, 0 for none.
func newCycle(models []*modelPlan, budget int64) (cyclePlan, error) {
	var p cyclePlan
	var streamed []string
	for _, m := range models {
		for _, s := range m.Stages {
			if s.Mode == modeRefused {
				p.Mode = modeRefused
				return p, nil
			}
		}
		for _, s := range m.streamed() {
			streamed = append(streamed, m.prefix(models)+s)
		}
		p.StreamSecondStep = m.streamSeconds(len(models))
	}
	c := &cycle{machine: residency.NewMachine(residency.Policy{}), now: time.Unix(0, 0)}
	if err := c.run(models, budget); err != nil {
		return p, err
	}
	p.PeakBytes = c.peak
	seconds, known, loads, stages := 0.0, true, 0, 0
	for _, m := range models {
		for _, s := range m.Stages {
			n := c.loads[component(s.kind, m.Model)]
			stages, loads = stages+1, loads+n
			name := m.prefix(models) + s.Stage
			if n == 0 {
				p.Resident = append(p.Resident, name)
				continue
			}
			p.Reloaded = append(p.Reloaded, name)
			bytes := float64(s.LoadedBytes) * float64(n) / float64(countRounds*len(models))
			p.ReloadedBytes += int64(bytes)
			known = known && m.LoadBytesPerSecond > 0
			if known {
				seconds += bytes / float64(m.LoadBytesPerSecond)
			}
		}
	}
	if known {
		p.ReloadSeconds = &seconds
	}
	switch {
	case len(streamed) > 0:
		p.Mode = modeStreamed + " " + strings.Join(streamed, ", ")
	case loads == 0:
		p.Mode = modeAll
	case loads == countRounds*stages:
		p.Mode = modeOne
	default:
		p.Mode = modePartly
	}
	return p, nil
}

// prefix tells a model's stages apart from others'.
func (p *modelPlan) prefix(all []*modelPlan) string {
	if len(all) == 1 {
		return ""
	}
	return p.Model + " "
}

// streamSeconds is what reading a streamed denoiser takes in each step; nil if it is not streamed, nobody knows, or
// models are many, each of which tells its own.
func (p *modelPlan) streamSeconds(models int) *float64 {
	for _, s := range p.Stages {
		if s.kind == stage.KindDenoiser && s.StreamedBytes > 0 && p.LoadBytesPerSecond > 0 && models == 1 {
			seconds := float64(s.StreamedBytes) / float64(p.LoadBytesPerSecond)
			return &seconds
		}
	}
	return nil
}

func component(kind stage.Kind, model string) string { return kind.String() + " " + model }

func (c *cycle) run(models []*modelPlan, budget int64) error {
	var names []string
	for _, m := range models {
		names = append(names, m.Model)
	}
	device := residency.Device{Host: "planned", Name: "device", BudgetBytes: budget}
	for _, k := range stage.Kinds() {
		c.heed(c.machine.Join(c.now, residency.StageID(k.String()), k, device, names))
	}
	for round := range warmRounds + countRounds {
		if round == warmRounds {
			c.loads = map[string]int{}
		}
		for _, m := range models {
			if err := c.image(m, residency.JobID(fmt.Sprint(m.Model, " ", round))); err != nil {
				return err
			}
		}
	}
	return nil
}

// image makes one image.
func (c *cycle) image(m *modelPlan, job residency.JobID) error {
	var needs []residency.Need
	for _, s := range m.Stages {
		needs = append(needs, residency.Need{Kind: s.kind, Model: m.Model, Footprint: s.footprint})
	}
	c.heed(c.machine.Announce(c.now, job, needs))
	for _, n := range needs {
		c.request++
		c.granted = false
		c.heed(c.machine.Acquire(c.now, c.request, job, n))
		if !c.granted {
			return fmt.Errorf("plan: the ledger does not grant the %v, which fits", n)
		}
		c.heed(c.machine.Release(c.now, c.request))
	}
	c.heed(c.machine.Forget(c.now, job))
	return nil
}

// heed does what was decided, at once.
func (c *cycle) heed(d residency.Decision) {
	c.now = c.now.Add(time.Second)
	c.granted = c.granted || len(d.Granted) > 0
	for _, e := range d.Events {
		c.peak = max(c.peak, e.UsedBytes)
	}
	for _, w := range d.Works {
		if kind, _ := stage.ParseKind(string(w.Stage)); !w.Evict && c.loads != nil {
			c.loads[component(kind, w.Model)]++
		}
		c.heed(c.machine.Done(c.now, w))
	}
}
