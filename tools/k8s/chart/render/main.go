// Command render renders a chart with many sets of values in one process, as helm template does, and checks each object.
//
//	render -chart FOLDER -schemas FOLDER < SETS > RESULTS
//
// A set is one JSON object a line, a result is another; results come in the order of their sets.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
)

// A set is what is given to the chart.
type set struct {
	Name        string         // as the result is to be called
	Release     string         // the release's name
	Namespace   string         // "default" if it is empty
	KubeVersion string         // such as 1.36.3
	APIVersions []string       // of custom resources that the cluster is to have
	Upgrade     bool           // of a release that there is, rather than an install
	Files       []string       // of values, which are put over the chart's own
	Values      map[string]any // what is put over those
	Text        bool           // texts and values are wanted
}

// A result is what the chart made of a set.
type result struct {
	Name     string
	Error    string   `json:",omitempty"` // why there are no objects
	Objects  []shown  `json:",omitempty"`
	Problems []string `json:",omitempty"` // what is wrong with the objects
	Notes    string   `json:",omitempty"` // if the set wants texts

	Values map[string]any `json:",omitempty"` // all of them, if the set wants texts
}

// shown is an object as a result has it.
type shown struct {
	Source, Kind, Name string
	Text               string `json:",omitempty"`
}

func main() {
	chart := flag.String("chart", "", "the chart's folder")
	schemas := flag.String("schemas", "", "the folder of schemas")
	flag.Parse()
	debug.SetGCPercent(400) // it ends soon, and templates make much garbage
	if err := run(*chart, *schemas, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "render:", err)
		os.Exit(1)
	}
}

// run works on as many sets at once as there are processors.
func run(chart, schemas string, in io.Reader, out io.Writer) error {
	checks, err := newChecker(schemas)
	if err != nil {
		return err
	}
	type job struct {
		set  set
		done chan result
	}
	todo, order := make(chan job), make(chan chan result, 64)
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		r, err := newRenderer(chart, checks)
		if err != nil {
			return err
		}
		workers.Go(func() {
			for j := range todo {
				j.done <- r.render(j.set)
			}
		})
	}
	read := make(chan error, 1)
	go func() {
		defer close(order)
		defer close(todo)
		read <- each(in, func(s set) {
			done := make(chan result, 1)
			order <- done
			todo <- job{s, done}
		})
	}()
	buffered := bufio.NewWriter(out)
	results := json.NewEncoder(buffered)
	for done := range order {
		if err := results.Encode(<-done); err != nil {
			return err
		}
	}
	workers.Wait()
	if err := <-read; err != nil {
		return err
	}
	return buffered.Flush()
}

// each calls f with every set of a stream.
func each(in io.Reader, f func(set)) error {
	sets := json.NewDecoder(in)
	for {
		var s set
		switch err := sets.Decode(&s); err {
		case nil:
			f(s)
		case io.EOF:
			return nil
		default:
			return err
		}
	}
}
