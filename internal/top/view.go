package top

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"charm.land/lipgloss/v2"
	"github.com/dustin/go-humanize"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
)

// The colours, by their numbers in the terminal's palette.
var (
	heading = lipgloss.NewStyle().Bold(true)
	calm    = lipgloss.NewStyle().Foreground(lipgloss.Color("2"))
	tight   = lipgloss.NewStyle().Foreground(lipgloss.Color("3"))
	full    = lipgloss.NewStyle().Foreground(lipgloss.Color("1"))
)

// The widths of bars, in cells.
const (
	barWidth  = 30
	stepWidth = 10
)

// View is the state as text of so many cells and lines. Times are shown in the zone given.
func (s State) View(server string, width, height int, zone *time.Location) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", heading.Render(fmt.Sprintf("triptych top  %s  %s", clean(server), s.time.In(zone).Format(time.TimeOnly))))
	for _, d := range s.devices {
		fmt.Fprintf(&b, "%s\n", d.line())
	}
	for _, h := range s.hosts {
		fmt.Fprintf(&b, "%s  keeps %s of %s warm\n", clean(h.name), size(s.warm(h.name)), size(h.budget))
	}
	b.WriteString(table("STAGE\tSERVICE\tCOMPONENT\tSTATE\tWEIGHTS\tDEVICE", s.stages()))
	b.WriteString(table("JOB\tSTAGE\tCOMPONENT\tDOES\tSTEP\tIMAGES\tSINCE", s.work(zone)))
	title := "DECISIONS"
	if s.dropped > 0 {
		title += fmt.Sprintf("  (%d came too fast to be seen)", s.dropped)
	}
	fmt.Fprintf(&b, "\n%s\n", heading.Render(title))
	room := max(0, height-strings.Count(b.String(), "\n"))
	for i := range min(room, len(s.decisions)) { // the newest first
		fmt.Fprintln(&b, decisionLine(s.decisions[len(s.decisions)-1-i], zone, time.TimeOnly))
	}
	return lipgloss.NewStyle().MaxWidth(width).MaxHeight(height).Render(strings.TrimSuffix(b.String(), "\n"))
}

// warm is what a host keeps of evicted weights, in bytes.
func (s State) warm(host string) (sum int64) {
	for _, c := range s.components {
		i := slices.IndexFunc(s.services, func(v service) bool { return v.address == c.service })
		if (c.state == warm || c.state == dropping) && i >= 0 && strings.HasPrefix(s.services[i].device, host+"/") {
			sum += c.bytes
		}
	}
	return sum
}

// line is a device with a bar of its budget.
func (d device) line() string {
	if d.budget == 0 {
		return fmt.Sprintf("%s  %s used, at most %s, no budget", clean(d.name), size(d.used), size(d.peak))
	}
	share := float64(d.used) / float64(d.budget)
	style := calm
	switch {
	case share > 1:
		style = full
	case share > 0.9:
		style = tight
	}
	return fmt.Sprintf("%s  %s %3.0f%%  %s of %s used, at most %s", clean(d.name), bar(share, barWidth, style), 100*share, size(d.used), size(d.budget), size(d.peak))
}

// stages are the rows of services and what they hold.
func (s State) stages() (rows []string) {
	for _, v := range s.services {
		row := func(name, state, bytes string) {
			rows = append(rows, strings.Join([]string{clean(v.stage), clean(v.address), clean(name), state, bytes, clean(v.device)}, "\t"))
		}
		empty := true
		for _, c := range s.components {
			if c.service == v.address {
				empty = false
				row(c.name, c.state, size(c.bytes))
			}
		}
		if empty {
			row("-", "empty", "-")
		}
	}
	return rows
}

// bar is a share of so many cells.
func bar(share float64, width int, style lipgloss.Style) string {
	cells := min(width, max(0, int(share*float64(width)+0.5)))
	return style.Render(strings.Repeat("█", cells)) + strings.Repeat("░", width-cells)
}

// work are the rows of requests, with how far their jobs are.
func (s State) work(zone *time.Location) (rows []string) {
	for _, r := range s.requests {
		step, images := s.progress(r)
		rows = append(rows, strings.Join([]string{clean(r.job), clean(r.stage), clean(r.set), r.doing, step, images, r.since.In(zone).Format(time.TimeOnly)}, "\t"))
	}
	return rows
}

// progress is the step of a request that works, and the images of its job; "-" where nobody told.
func (s State) progress(r request) (step, images string) {
	step, images = "-", "-"
	for _, j := range s.jobs {
		if j.GetJob() != r.job {
			continue
		}
		images = fmt.Sprintf("%d/%d", j.GetImagesDone(), j.GetImages())
		for _, w := range j.GetWork() {
			if w.GetStage() == r.stage && r.doing == works && w.GetSteps() > 0 {
				step = fmt.Sprintf("%s %d/%d", bar(float64(w.GetStep())/float64(w.GetSteps()), stepWidth, lipgloss.NewStyle()), w.GetStep(), w.GetSteps())
			}
		}
	}
	return step, images
}

// table is an empty line, a heading and rows, in columns. Cells are separated by tabs.
func table(head string, rows []string) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, head)
	for _, r := range rows {
		fmt.Fprintln(w, r)
	}
	_ = w.Flush() // a strings.Builder takes all
	first, rest, _ := strings.Cut(b.String(), "\n")
	return "\n" + heading.Render(first) + "\n" + rest
}

// Line is a decision for a log; news that are none give a line of their own or, if there is nothing to
// tell, "".
func Line(news *triptychv1alpha1.WatchResidencyResponse, zone *time.Location) string {
	if d := news.GetDecision(); d != nil {
		line := decisionLine(d, zone, "2006-01-02T15:04:05.000Z07:00")
		if d.GetJob() != "" {
			line += "  job " + clean(d.GetJob())
		}
		return line
	}
	if n := news.GetSnapshot().GetDroppedDecisions(); n > 0 {
		return fmt.Sprintf("decisions that came too fast to be seen so far: %d", n)
	}
	return ""
}

func decisionLine(d *triptychv1alpha1.ResidencyDecision, zone *time.Location, layout string) string {
	e := d.GetEvent()
	action := strings.ToLower(strings.TrimPrefix(e.GetAction().String(), "ACTION_"))
	used := size(e.GetUsedBytes()) + " used"
	if e.GetBudgetBytes() > 0 {
		used = fmt.Sprintf("%s of %s used", size(e.GetUsedBytes()), size(e.GetBudgetBytes()))
	}
	return fmt.Sprintf("%s  %-8s %s %s  %s, %s: %s", e.GetTime().AsTime().In(zone).Format(layout), action, clean(e.GetStage()), clean(subject(e)),
		size(e.GetBytes()), used, clean(e.GetReason()))
}

func size(bytes int64) string { return humanize.IBytes(uint64(max(0, bytes))) }

// clean replaces what a terminal might take for a command, and what would break a line or a column.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == unicode.ReplacementChar {
			return '.'
		}
		return r
	}, text)
}
