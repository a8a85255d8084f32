package stagetest

import (
	"context"
	"fmt"
	"hash/fnv"
	"strings"

	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/stage"
)

// Encoder is a fake encoder. A word is a token.
type Encoder struct{ *residency }

var _ stage.Encoder = (*Encoder)(nil)

// NewEncoder makes a fake with nothing resident; script may be nil.
func NewEncoder(script *Script) *Encoder {
	return &Encoder{newResidency(stage.KindEncoder, script, stage.Component{MaxTokens: maxTokens, ContextDim: contextDim})}
}

const promptBytes = 4 * maxTokens * contextDim

// Plan ignores the latent size.
func (e *Encoder) Plan(ctx context.Context, req stage.PlanRequest) (stage.Footprint, error) {
	return e.plan(ctx, req, promptBytes)
}

// Encode hashes words with their positions.
func (e *Encoder) Encode(ctx context.Context, req stage.EncodeRequest) (stage.Conditioning, error) {
	if len(req.Prompts) == 0 || len(req.Prompts) > 64 {
		return stage.Conditioning{}, stage.Invalid(stage.InvalidField, "prompts", len(req.Prompts), "1 to 64 prompts")
	}
	end, err := e.begin(ctx, req.Model, promptBytes*int64(len(req.Prompts)))
	if err != nil {
		return stage.Conditioning{}, err
	}
	defer end()
	states := make([]float32, 0, len(req.Prompts)*maxTokens*contextDim)
	var c stage.Conditioning
	for i, prompt := range req.Prompts {
		if err := e.script.at(ctx, OpEncode, i+1); err != nil {
			return stage.Conditioning{}, err
		}
		words := strings.Fields(prompt)
		c.DroppedTokens = append(c.DroppedTokens, max(0, len(words)-maxTokens))
		for t := range maxTokens {
			word := "<pad>"
			if t < len(words) {
				word = words[t]
			}
			h := fnv.New64a()
			fmt.Fprintf(h, "%s %d %s", req.Model, t, word)
			for d := range contextDim {
				states = append(states, noise(h.Sum64(), 0, d))
			}
		}
	}
	c.States = tensor.FromF32(states, len(req.Prompts), maxTokens, contextDim)
	return c, nil
}

// noise is a number from -1 to 1 that depends on nothing but seed, draw and position (splitmix64).
func noise(seed uint64, draw, position int) float32 {
	x := seed ^ uint64(draw)<<40 ^ uint64(position)
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	x ^= x >> 31
	return float32(int32(x>>32)) / (1 << 31)
}
