package toy

import (
	"context"
	"hash/fnv"
	"strings"

	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/stage"
)

func (m *model) encodeRuns(nets []family.Network, _ stage.Options) ([]family.Run, error) {
	runs := make([]family.Run, len(nets))
	for i, net := range nets {
		tape, err := net.(*text).Tape(m.text[0].Tokens)
		if err != nil {
			return nil, err
		}
		runs[i] = family.Run{Member: i, Tape: tape}
	}
	return runs, nil
}

// encode gives the states of the prompt, those of one encoder beside those of the other for each token.
func (m *model) encode(ctx context.Context, s family.Session, req stage.WorkRequest, _ stage.Observer) (stage.Result, error) {
	runs, err := m.encodeRuns([]family.Network{s.Network(0), s.Network(1)}, req.Options)
	if err != nil {
		return stage.Result{}, err
	}
	var out stage.Result
	tokens := m.text[0].Tokens
	ids, dropped := tokenize(req.Options[optionPrompt].Text, tokens)
	if dropped > 0 {
		out.Warnings = []stage.Warning{family.Truncated(optionPrompt, dropped, tokens)}
	}
	var states []float32
	of := [2][]float32{make([]float32, tokens*m.text[0].Width), make([]float32, tokens*m.text[1].Width)}
	for i, r := range runs {
		if err := m.states(ctx, s, r, ids, of[i]); err != nil {
			return out, err
		}
	}
	for t := range tokens {
		for i, c := range m.text {
			states = append(states, of[i][t*c.Width:][:c.Width]...)
		}
	}
	out.Values = stage.Values{family.Tensor(valueStates, states, 1, tokens, m.context())}
	return out, nil
}

// states fills in those of one encoder.
func (m *model) states(ctx context.Context, s family.Session, r family.Run, ids []int32, states []float32) error {
	run, err := s.Start(r)
	if err != nil {
		return err
	}
	defer run.Free()
	if err := family.First(
		func() error { return run.WriteIDs(modeldir.InputIDs, ids) },
		func() error { return run.Execute(ctx) },
		func() error { return run.Read(modeldir.OutputStates, states) },
	); err != nil {
		return s.Failed(r, run, err)
	}
	if !family.Finite(states) {
		return s.NotFinite(r.Member, "states")
	}
	return nil
}

// tokenize gives the ids of words, filled up with 0, and how many there was no room for.
func tokenize(prompt string, tokens int) (ids []int32, dropped int) {
	ids = make([]int32, tokens)
	words := strings.Fields(strings.ToLower(prompt))
	for i, word := range words[:min(len(words), tokens)] {
		h := fnv.New32a()
		h.Write([]byte(word))
		ids[i] = int32(1 + h.Sum32()%(vocabulary-1))
	}
	return ids, max(0, len(words)-tokens)
}
