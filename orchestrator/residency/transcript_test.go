package residency

import (
	"fmt"
	"strings"

	"github.com/triptych-serving/triptych/stage"
)

// transcript writes what came of a step, a line each.
func transcript(effects []effect, events []Event) string {
	var b strings.Builder
	for _, e := range events {
		who := string(e.Job)
		if e.Request != 0 {
			who += fmt.Sprintf(" r%d", e.Request)
		}
		where := e.Device
		if e.Stage != "" {
			where += " " + string(e.Stage)
		}
		fmt.Fprintf(&b, "  %-8s %s [%s] %v %s %d, used %d of %d: %s%s\n", strings.ToUpper(e.Action.String()),
			strings.TrimSpace(who), strings.TrimSpace(where), e.Kind, names(e), e.Bytes, e.UsedBytes, e.BudgetBytes, e.Reason, remark(e))
	}
	for _, e := range effects {
		switch e := e.(type) {
		case startLoad:
			fmt.Fprintf(&b, "  -> load %v %s prefetch=%v\n", e.at, e.name, e.prefetch)
		case startEvict:
			what, warm := "evict", ""
			if e.load != 0 {
				what = "cancel load"
			}
			if e.warm {
				warm = " and leave it warm"
			}
			fmt.Fprintf(&b, "  -> %s %v %s%s\n", what, e.at, e.name, warm)
		case abandon:
			fmt.Fprintf(&b, "  -> abandon work at %s\n", e.stage)
		case grant:
			fmt.Fprintf(&b, "  -> grant r%d at %s, queued %v, loading %v\n", e.request, e.lease.Stage, e.lease.Queued, e.lease.Loading)
		case refuse:
			fmt.Fprintf(&b, "  -> refuse r%d: %s %v\n", e.request, stage.ReasonOf(e.err), e.err)
		case revoke:
			fmt.Fprintf(&b, "  -> revoke r%d\n", e.request)
		case moved:
			fmt.Fprintf(&b, "  -> r%d has %d ahead\n", e.request, e.ahead)
		default:
			fmt.Fprintf(&b, "  -> %#v\n", e)
		}
	}
	return b.String()
}

// names are all components that an event tells of.
func names(e Event) string {
	if len(e.Components) > 0 {
		return strings.Join(e.Components, " + ")
	}
	return e.Component
}

// remark is what only some events have.
func remark(e Event) string {
	var words []string
	if e.Class != 0 {
		words = append(words, e.Class.String())
	}
	if e.Took != 0 {
		words = append(words, "took "+e.Took.String())
	}
	if len(words) == 0 {
		return ""
	}
	return " (" + strings.Join(words, ", ") + ")"
}

// describe writes the ledger, a line for each thing.
func describe(l *ledger) string {
	var b strings.Builder
	s := l.snapshot()
	for _, d := range s.Devices {
		fmt.Fprintf(&b, "  %s: used %d of %d, peak %d\n", d.Key(), d.UsedBytes, d.BudgetBytes, d.PeakBytes)
	}
	for _, h := range s.Hosts {
		fmt.Fprintf(&b, "  %s: warm %d of %d\n", h.Host, h.UsedBytes, h.BudgetBytes)
	}
	for _, v := range s.Stages {
		if v.Leased {
			fmt.Fprintf(&b, "  %s: works for %s with %d of scratch\n", v.Stage, v.Job, v.ScratchBytes)
		}
	}
	for _, c := range s.Components {
		fmt.Fprintf(&b, "  %s: %v %s %v, %d", c.Stage, c.Kind, c.Component, c.State, c.WeightsBytes)
		if c.WarmBytes > 0 {
			fmt.Fprintf(&b, ", warm %d", c.WarmBytes)
		}
		fmt.Fprintln(&b)
	}
	for i, r := range l.requests {
		switch {
		case r.phase == granted:
		case r.service != nil:
			fmt.Fprintf(&b, "  r%d of %s waits for %v, 0 ahead, at %s\n", r.request, r.job, r.need, r.service.id)
		default:
			fmt.Fprintf(&b, "  r%d of %s waits for %v, %d ahead\n", r.request, r.job, r.need, l.before(i))
		}
	}
	return b.String()
}

// String names the process in failures and transcripts.
func (p process) String() string {
	if p.generation == 0 {
		return string(p.stage)
	}
	return fmt.Sprintf("%s of runtime %d", p.stage, p.generation)
}
