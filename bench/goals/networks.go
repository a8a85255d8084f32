package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// goal is what a network should come to beside PyTorch in float32, or beside ourselves without a LoRA: at most so many times its
// time and, where that is not 0, its memory.
type goal struct {
	row          string // what the row's name begins with
	lora         bool
	time, memory float64
}

var networkGoals = []goal{
	{row: "sdxl text encoder", time: 0.9},
	{row: "sdxl U-Net step 128x128", time: 0.65, memory: 0.35},
	{row: "sdxl VAE decode to 1024x1024", time: 0.5, memory: 0.1},
	{row: "sdxl U-Net step", lora: true, time: 1.05},
	{row: "esrgan x4", time: 0.6},
}

// network is a row of a report of bench.
type network struct {
	Name  string `json:"name"`
	Peers []side `json:"peers"`
}

type side struct {
	Name        string  `json:"name"`
	Ratio       float64 `json:"ratio"`
	MemoryRatio float64 `json:"memory_ratio"`
}

// The sides that goals are beside: see networks.PythonPeers and networks.WithoutLoRAName.
const (
	pytorch     = "eager f32"
	withoutLoRA = "triptych, no LoRA"
)

func readNetworks(text []byte) ([]network, error) {
	var report struct {
		Networks []network `json:"networks"`
	}
	if err := json.Unmarshal(text, &report); err != nil {
		return nil, err
	}
	if len(report.Networks) == 0 {
		return nil, errors.New("expected at least one network")
	}
	return report.Networks, nil
}

// verdict is a figure beside its goal.
func verdict(got, most float64) string {
	switch {
	case most == 0:
		return "-"
	case got == 0:
		return fmt.Sprintf("not measured (%v)", most)
	case got > most:
		return fmt.Sprintf("%.3f (%v), NOT REACHED", got, most)
	}
	return fmt.Sprintf("%.3f (%v)", got, most)
}

// writeNetworks prints the rows that have goals, and what they come to.
func writeNetworks(w io.Writer, list []network) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NETWORK\tBESIDE\tTIME (GOAL)\tMEMORY (GOAL)")
	for _, n := range list {
		for _, s := range n.Peers {
			for _, g := range networkGoals {
				if !strings.HasPrefix(n.Name, g.row) || (s.Name == withoutLoRA) != g.lora || !g.lora && !strings.HasPrefix(s.Name, pytorch) {
					continue
				}
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", n.Name, s.Name, verdict(s.Ratio, g.time), verdict(s.MemoryRatio, g.memory))
			}
		}
	}
	return t.Flush()
}
