package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/triptych-serving/triptych/internal/baseline"
)

// The goals of the memory policy, in reload seconds.
const (
	mostToOracle = 1.15 // times the oracle's
	leastToLRU   = 2    // times fewer than evicting the least recently used
)

// row is every policy on one trace under one budget, of a report of `triptych simulate`.
type row struct {
	Trace     string            `json:"trace"`
	Budget    string            `json:"budget"`
	WarmBytes int64             `json:"warm_bytes"`
	Online    *baseline.Online  `json:"online"` // nil where there is too much to choose from
	Results   []baseline.Result `json:"results"`
}

// reached is what a row comes to beside what can be had.
type reached struct {
	ours, inOrder, foretold, lru baseline.Result
	least                        float64 // reload seconds of the oracle, in the best of the orders that policies served in
}

func (r row) reached() (g reached) {
	for _, p := range r.Results {
		switch p.Policy {
		case baseline.Ours:
			g.ours, g.least = p, p.OracleSeconds
		case baseline.InOrder:
			g.inOrder = p
		case baseline.Foretold:
			g.foretold = p
		case baseline.LRU:
			g.lru = p
		}
		if p.Done == g.ours.Done {
			g.least = min(g.least, p.OracleSeconds)
		}
	}
	return g
}

// counts are of the rows that serve any job: those that reach a goal, and of the others those that nobody could.
type counts struct {
	rows                int
	near, unforeseen    int // at most mostToOracle, and beyond that for whoever knows all but the jobs to come
	fewer, fewerAtLeast int // leastToLRU for us, and for the oracle
}

func (c *counts) add(g reached, online *baseline.Online) {
	if g.ours.Done == 0 {
		return
	}
	c.rows++
	switch {
	case g.ours.ReloadSeconds <= mostToOracle*g.ours.OracleSeconds:
		c.near++
	case online != nil && online.ReloadSeconds > mostToOracle*online.OracleSeconds:
		c.unforeseen++
	}
	if g.lru.ReloadSeconds >= leastToLRU*g.ours.ReloadSeconds {
		c.fewer++
	}
	if g.lru.ReloadSeconds >= leastToLRU*g.least {
		c.fewerAtLeast++
	}
}

// write prints our reload seconds beside the oracle's, each policy to the oracle of its own order, beside the
// least that can be expected without knowing the future, and those of the least recently used in order of arrival.
func write(w io.Writer, rows []row) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "TRACE\tBUDGET\tRELOAD s\tTO ORACLE\tIN ORDER\tFORETOLD\tTO ONLINE\tONLINE TO ORACLE\tLRU TO OURS\tLRU TO ORACLE\tVIOLATIONS")
	var c counts
	for _, r := range rows {
		g := r.reached()
		toOnline, onlineToOracle := "n/a", "n/a"
		if r.Online != nil {
			toOnline, onlineToOracle = ratio(g.ours.ReloadSeconds, r.Online.ReloadSeconds), ratio(r.Online.ReloadSeconds, r.Online.OracleSeconds)
		}
		fmt.Fprintf(t, "%s\t%s\t%.1f\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\n", r.Trace, r.Budget, g.ours.ReloadSeconds, ratio(g.ours.ReloadSeconds, g.ours.OracleSeconds),
			ratio(g.inOrder.ReloadSeconds, g.inOrder.OracleSeconds), ratio(g.foretold.ReloadSeconds, g.foretold.OracleSeconds), toOnline, onlineToOracle,
			ratio(g.lru.ReloadSeconds, g.ours.ReloadSeconds), ratio(g.lru.ReloadSeconds, g.least), g.ours.Violations)
		c.add(g, r.Online)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\nAt most %v of the oracle: in %d of %d rows; of the others, %d are beyond who knows all but the jobs to come (ONLINE TO ORACLE).\n"+
		"At least %v times fewer than the least recently used: in %d of %d rows; the oracle comes to it in %d.\n", mostToOracle, c.near, c.rows, c.unforeseen, leastToLRU, c.fewer, c.rows, c.fewerAtLeast)
	return err
}

func ratio(a, b float64) string {
	if b == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", a/b)
}
