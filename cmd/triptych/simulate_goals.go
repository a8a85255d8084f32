package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/triptych-serving/triptych/orchestrator/residency/simulate"
)

// The goals of the memory policy, in reload seconds.
const (
	mostToOracle = 1.15 // times the oracle's
	leastToLRU   = 2    // times fewer than evicting the least recently used
)

// goals are what a row comes to beside what can be had.
type goals struct {
	ours, inOrder, foretold, lru simulate.Result
	least                        float64 // reload seconds of the oracle, in the best of the orders that policies served in
	online                       *simulate.Online
}

func (r simulated) goals() goals {
	g := goals{online: r.Online}
	for _, p := range r.Results {
		switch p.Policy {
		case simulate.Ours:
			g.ours, g.least = p, p.OracleSeconds
		case simulate.InOrder:
			g.inOrder = p
		case simulate.Foretold:
			g.foretold = p
		case simulate.LRU:
			g.lru = p
		}
		if p.Done == g.ours.Done {
			g.least = min(g.least, p.OracleSeconds)
		}
	}
	return g
}

// printGoals prints our reload seconds beside the oracle's, each policy to the oracle of its own order, beside the
// least that can be expected without knowing the future, and those of the least recently used in order of arrival.
func printGoals(w io.Writer, rows []simulated) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "TRACE\tBUDGET\tRELOAD s\tTO ORACLE\tIN ORDER\tFORETOLD\tTO ONLINE\tONLINE TO ORACLE\tLRU TO OURS\tLRU TO ORACLE\tVIOLATIONS")
	var count, near, unforeseen, fewer, possible int
	for _, r := range rows {
		g := r.goals()
		toOnline, onlineToOracle := "n/a", "n/a"
		if g.online != nil {
			toOnline, onlineToOracle = ratio(g.ours.ReloadSeconds, g.online.ReloadSeconds), ratio(g.online.ReloadSeconds, g.online.OracleSeconds)
		}
		fmt.Fprintf(t, "%s\t%s\t%.1f\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\n", r.Trace, r.Budget, g.ours.ReloadSeconds, ratio(g.ours.ReloadSeconds, g.ours.OracleSeconds),
			ratio(g.inOrder.ReloadSeconds, g.inOrder.OracleSeconds), ratio(g.foretold.ReloadSeconds, g.foretold.OracleSeconds), toOnline, onlineToOracle,
			ratio(g.lru.ReloadSeconds, g.ours.ReloadSeconds), ratio(g.lru.ReloadSeconds, g.least), g.ours.Violations)
		if g.ours.Done == 0 {
			continue
		}
		count++
		switch {
		case g.ours.ReloadSeconds <= mostToOracle*g.ours.OracleSeconds:
			near++
		case g.online != nil && g.online.ReloadSeconds > mostToOracle*g.online.OracleSeconds:
			unforeseen++
		}
		if g.lru.ReloadSeconds >= leastToLRU*g.ours.ReloadSeconds {
			fewer++
		}
		if g.lru.ReloadSeconds >= leastToLRU*g.least {
			possible++
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\nAt most %v of the oracle: in %d of %d rows; of the others, %d are beyond who knows all but the jobs to come (ONLINE TO ORACLE).\n"+
		"At least %v times fewer than the least recently used: in %d of %d rows; the oracle comes to it in %d.\n", mostToOracle, near, count, unforeseen, leastToLRU, fewer, count, possible)
	return err
}
