// Command promql parses expressions of Prometheus, one JSON string a line, and tells of each what it selects.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// parsed is what is told of an expression, as a line of JSON.
type parsed struct {
	Error     string     `json:",omitempty"`
	Selectors []selector `json:",omitempty"`
}

// A selector names a metric, and labels that its series are to have. Those that an aggregation keeps are among them.
type selector struct {
	Metric string
	Labels []string
}

func main() {
	out := json.NewEncoder(os.Stdout)
	for in := json.NewDecoder(os.Stdin); ; {
		var expression string
		err := in.Decode(&expression)
		if errors.Is(err, io.EOF) {
			return
		}
		if err == nil {
			err = out.Encode(parse(expression))
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "promql:", err)
			os.Exit(1)
		}
	}
}

func parse(expression string) parsed {
	e, err := parser.NewParser(parser.Options{}).ParseExpr(expression)
	if err != nil {
		return parsed{Error: err.Error()}
	}
	var p parsed
	parser.Inspect(e, func(n parser.Node, above []parser.Node) error {
		v, ok := n.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		s := selector{Metric: v.Name}
		for _, m := range v.LabelMatchers {
			if m.Name != labels.MetricName {
				s.Labels = append(s.Labels, m.Name)
			}
		}
		for _, node := range above {
			if a, ok := node.(*parser.AggregateExpr); ok && !a.Without {
				s.Labels = append(s.Labels, a.Grouping...)
			}
		}
		p.Selectors = append(p.Selectors, s)
		return nil
	})
	return p
}
