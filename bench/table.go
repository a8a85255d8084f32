package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/triptych-serving/triptych/bench/kernels"
	"github.com/triptych-serving/triptych/bench/limits"
	"github.com/triptych-serving/triptych/bench/networks"
	"github.com/triptych-serving/triptych/bench/stat"
)

// markdown is the report for people: the tables of README.md.
func (r *report) markdown() string {
	var b strings.Builder
	m := r.Machine
	fmt.Fprintf(&b, "%s, %d cores, %s, %s/%s %s; %s; %d threads; %s.\n", orUnknown(m.CPU), m.Cores, gib(m.MemoryBytes), m.OS, m.Arch, m.Kernel, pairs(r.Versions), r.Threads, r.Date)
	fmt.Fprintf(&b, "Load average %s before, %s after (1, 5, 15 minutes; the run itself makes up to %d).", orUnknown(m.LoadBefore), orUnknown(m.LoadAfter), r.Threads)
	if len(r.Environment) > 0 {
		fmt.Fprintf(&b, " Set: %s.", pairs(r.Environment))
	}
	b.WriteString("\n")
	limitsTable(&b, r.Limits)
	productsTable(&b, r.Kernels, r.Threads)
	memoryTable(&b, r.Kernels, r.Threads)
	networksTable(&b, r.Networks)
	r.startTable(&b)
	return b.String()
}

// table writes a heading and rows of cells.
func table(b *strings.Builder, title string, head []string, rows [][]string) {
	if len(rows) == 0 {
		return
	}
	fmt.Fprintf(b, "\n%s\n\n| %s |\n|", title, strings.Join(head, " | "))
	for i := range head {
		if i < 2 && (head[i] == "shape" || head[i] == "engine") || i == 0 {
			b.WriteString(" --- |")
		} else {
			b.WriteString(" --: |")
		}
	}
	b.WriteString("\n")
	for _, r := range rows {
		fmt.Fprintf(b, "| %s |\n", strings.Join(r, " | "))
	}
}

func limitsTable(b *strings.Builder, l limits.Limits) {
	row := func(name, unit string, r limits.Rate) []string {
		return []string{name, unit, number(r.One), number(r.All)}
	}
	rows := [][]string{row("multiply-adds between registers", "GFLOP/s", l.FMA)}
	for _, v := range l.Levels {
		rows = append(rows, row(v.Name+" read", "GB/s", v.Read), row(v.Name+" copy, read and written", "GB/s", v.Copy))
	}
	rows = append(rows, row("memcpy, copied", "GB/s", l.Memcpy), row("copied into fresh memory", "GB/s", l.Fresh))
	if l.DiskRead > 0 {
		rows = append(rows, []string{fmt.Sprintf("disk read, %d MB", l.DiskBytes/1_000_000), "GB/s", number(l.DiskRead), "-"})
	}
	table(b, "**The limits of this machine**", []string{"limit", "unit", "1 thread", fmt.Sprintf("%d threads", l.Threads)}, rows)
}

// byShape gathers the rows of a shape: on one thread, and on all threads by the type of the weights.
type byShape struct {
	one, all *kernels.Row
	stored   map[string]*kernels.Row
}

func gather(list []kernels.Row, threads int, products bool) (order []string, shapes map[string]*byShape) {
	shapes = map[string]*byShape{}
	for i := range list {
		k := &list[i]
		if (k.GFLOPS > 0) != products {
			continue
		}
		key := k.Kind + " | " + k.Size
		s := shapes[key]
		if s == nil {
			s = &byShape{stored: map[string]*kernels.Row{}}
			shapes[key], order = s, append(order, key)
		}
		base := k.Stored == "" || k.Stored == "f32"
		if k.Threads == 1 && base {
			s.one = k
		}
		if k.Threads == threads {
			s.stored[k.Stored] = k
			if base {
				s.all = k
			}
		}
	}
	return order, shapes
}

func productsTable(b *strings.Builder, list []kernels.Row, threads int) {
	order, shapes := gather(list, threads, true)
	var rows [][]string
	for _, key := range order {
		s := shapes[key]
		cells := []string{key}
		for _, k := range []*kernels.Row{s.one, s.all} {
			if k == nil {
				cells = append(cells, "-", "-", "-")
			} else {
				cells = append(cells, number(k.Ms.Min), number(k.GFLOPS), percent(k.PeakShare))
			}
		}
		for _, stored := range []string{"f16", "bf16", "int8"} {
			if k := s.stored[stored]; k == nil || k.Slowdown == 0 {
				cells = append(cells, "-")
			} else {
				cells = append(cells, fmt.Sprintf("%+.1f %%", 100*(k.Slowdown-1)))
			}
		}
		rows = append(rows, cells)
	}
	n := fmt.Sprintf("%d threads", threads)
	table(b, "**Products, convolutions, attention**: the fastest repetition; f32 weights, and how much longer others take on all threads; convolutions at the operations of the direct method",
		[]string{"operation", "shape", "1 thread ms", "GFLOP/s", "of peak", n + " ms", "GFLOP/s", "of peak", "f16", "bf16", "int8"}, rows)
}

func memoryTable(b *strings.Builder, list []kernels.Row, threads int) {
	order, shapes := gather(list, threads, false)
	var rows [][]string
	for _, key := range order {
		s := shapes[key]
		cells, level := []string{key}, "-"
		for _, k := range []*kernels.Row{s.one, s.all} {
			if k == nil {
				cells = append(cells, "-", "-", "-")
			} else {
				cells, level = append(cells, number(k.Ms.Min), number(k.GBs), percent(k.CopyShare)), k.Level
			}
		}
		rows = append(rows, append(cells, level))
	}
	n := fmt.Sprintf("%d threads", threads)
	table(b, "**Norms and pointwise operations**: the fastest repetition; every operand and the result counted once, to the copy bandwidth of the level they fit in",
		[]string{"operation", "shape", "1 thread ms", "GB/s", "of copy", n + " ms", "GB/s", "of copy", "level"}, rows)
}

func networksTable(b *strings.Builder, list []networks.Row) {
	var rows [][]string
	for _, r := range list {
		o := r.Ours
		rows = append(rows, append(append([]string{r.Name, "**" + o.Name + "**, " + percent(r.PeakShare) + " of peak"}, summary(o.Ms)...), "", peaks(o), "", seconds(o.LoadSeconds), ""))
		for _, p := range r.Peers {
			if p.Problem != "" && p.Ms.Reps == 0 {
				rows = append(rows, []string{"", p.Name, "none: " + cell(p.Problem), "", "", "", "", "", "", "", "", ""})
				continue
			}
			name := p.Name
			switch {
			case p.Ratio == 0:
			case name == networks.ServicesName:
				name += fmt.Sprintf(", splitting costs %.1f %%", 100*(1/p.Ratio-1))
			case name == networks.OneThreadName:
				name += fmt.Sprintf(", %.2f times as long", 1/p.Ratio)
			case name == networks.WithoutLoRAName:
				name += fmt.Sprintf(", it costs %.1f %%", 100*(p.Ratio-1))
			}
			if p.Problem != "" {
				name += " (" + cell(p.Problem) + ")"
			}
			rows = append(rows, append(append([]string{"", name}, summary(p.Ms)...), ratio(p.Ratio), peaks(p), ratio(p.MemoryRatio), seconds(p.LoadSeconds), p.Check.String()))
		}
	}
	table(b, "**Networks and images**: milliseconds; ratios are ours to theirs, of medians of the same turns and of peak resident memory",
		[]string{"work", "engine", "median", "min", "max", "spread", "reps", "time ratio", "peak", "memory ratio", "load", "difference"}, rows)
	peerNotes(b, list)
}

// peerNotes lists what the peers tell of themselves, and for which rows where that differs.
func peerNotes(b *strings.Builder, list []networks.Row) {
	rows := map[string]int{}       // by peer: those it was there in
	notes := map[string][]string{} // the rows of a note
	owner := map[string]string{}   // the peer of a note
	note := func(p networks.Side, row, text string) {
		text = p.Name + ": " + cell(text)
		notes[text], owner[text] = append(notes[text], row), p.Name
	}
	for _, r := range list {
		for _, p := range r.Peers {
			if p.Ms.Reps == 0 {
				continue
			}
			rows[p.Name]++
			if len(p.Versions) > 0 {
				note(p, r.Name, pairs(p.Versions))
			}
			for _, k := range slices.Sorted(maps.Keys(p.Notes)) {
				note(p, r.Name, k+" "+fmt.Sprint(p.Notes[k]))
			}
		}
	}
	if len(notes) > 0 {
		b.WriteString("\n")
	}
	for _, text := range slices.Sorted(maps.Keys(notes)) {
		where := ""
		if len(notes[text]) < rows[owner[text]] {
			where = " (" + strings.Join(notes[text], "; ") + ")"
		}
		fmt.Fprintf(b, "- %s%s\n", text, where)
	}
}

func (r *report) startTable(b *strings.Builder) {
	var rows [][]string
	for _, l := range r.Loads {
		rows = append(rows, []string{
			l.Name, fmt.Sprintf("%.0f MB", float64(l.Bytes)/1e6), number(l.ColdMs.Min), number(l.ColdGB), percent(l.DiskShare),
			number(l.WarmMs.Min), number(l.WarmGB), percent(l.MemcpyShare), percent(l.FreshShare),
		})
	}
	table(b, "**Loading**: the fastest of three; cold to a plain read of the same file that is not in the page cache, warm to a copy of memory, and of a cache into fresh memory",
		[]string{"network", "stored", "cold ms", "GB/s", "of disk", "warm ms", "GB/s", "of memcpy", "of fresh memory"}, rows)
	if s := r.Start; s != nil {
		fmt.Fprintf(b, "\n`triptych generate` on the %s model, from its start: %s ms to the first denoise step (median of %d, %s to %s), %s ms to its end.\n",
			s.Model, number(s.FirstStep.Median), s.FirstStep.Reps, number(s.FirstStep.Min), number(s.FirstStep.Max), number(s.Image.Median))
	}
}

func summary(s stat.Summary) []string {
	return []string{number(s.Median), number(s.Min), number(s.Max), percent(s.Spread), fmt.Sprint(s.Reps)}
}

// number has three digits or more.
func number(v float64) string {
	switch {
	case v == 0:
		return "-"
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 0.1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.4f", v)
}

func percent(v float64) string { return fmt.Sprintf("%.0f %%", 100*v) }

func ratio(v float64) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf("%.3f", v)
}

func seconds(v float64) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f s", v)
}

func mib(n int64) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

// peaks are the peak of a side's memory and what of it the ledger of its device has.
func peaks(s networks.Side) string {
	if s.PeakLedger == 0 {
		return mib(s.PeakRSS)
	}
	return fmt.Sprintf("%s, ledger %d", mib(s.PeakRSS), s.PeakLedger>>20)
}

func gib(n int64) string { return fmt.Sprintf("%.0f GiB", float64(n)/(1<<30)) }

// cell keeps a text on one line of a table.
func cell(s string) string {
	return strings.NewReplacer("|", "/", "\n", " ").Replace(s)
}

func pairs(m map[string]string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, k+" "+m[k])
	}
	return strings.Join(out, ", ")
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}
