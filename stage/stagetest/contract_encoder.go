package stagetest

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/triptych-serving/triptych/engine/tensor"
	"github.com/triptych-serving/triptych/stage"
)

// EncoderContract checks every sentence of stage.Encoder. prompts are at least two valid ones that
// fit and differ.
func EncoderContract(t *testing.T, subject Subject[stage.Encoder], prompts ...string) {
	c := contract[stage.Encoder]{
		Subject: subject, kind: stage.KindEncoder, op: OpEncode,
		plan: stage.PlanRequest{Model: subject.Model, Batch: len(prompts)},
		work: func(ctx context.Context, s stage.Encoder, model string) (any, error) {
			return s.Encode(ctx, stage.EncodeRequest{Model: model, Prompts: prompts})
		},
	}
	c.run(t)
	t.Run("Encode", func(t *testing.T) {
		s, _ := c.loaded(t)
		m := find(t, s, c.Model)
		given, err := s.Encode(patient(t), stage.EncodeRequest{Model: c.Model, Prompts: prompts})
		if err != nil {
			t.Fatalf("Encode: %v", err)
		}
		wantTensor(t, "States", given.States, len(prompts), m.MaxTokens, m.ContextDim)
		same(t, "dropped tokens of prompts that fit", given.DroppedTokens, make([]int, len(prompts)))
		half := len(given.States.Data) / len(prompts)
		if string(given.States.Data[:half]) == string(given.States.Data[half:2*half]) {
			t.Errorf("different prompts give the same states")
		}
	})
	t.Run("Dropped", func(t *testing.T) {
		s, _ := c.loaded(t)
		m := find(t, s, c.Model)
		long := strings.Repeat("word ", m.MaxTokens+3)
		given, err := s.Encode(patient(t), stage.EncodeRequest{Model: c.Model, Prompts: []string{"", long}})
		if err != nil {
			t.Fatalf("Encode: %v", err)
		}
		wantTensor(t, "States", given.States, 2, m.MaxTokens, m.ContextDim)
		if d := given.DroppedTokens; len(d) != 2 || d[0] != 0 || d[1] < 3 {
			t.Errorf("DroppedTokens = %v of an empty and a long prompt", d)
		}
	})
	t.Run("Invalid", func(t *testing.T) {
		s, _ := c.loaded(t)
		_, err := s.Encode(patient(t), stage.EncodeRequest{Model: c.Model})
		want(t, "Encode without prompts", err, stage.InvalidField)
	})
}

// wantTensor checks type, shape and bytes.
func wantTensor(t *testing.T, name string, got tensor.Tensor, shape ...int) {
	t.Helper()
	if err := got.Validate(); err != nil || got.DType != tensor.F32 || !got.Shape.Equal(shape) {
		t.Fatalf("%s is %v of shape %v, expected F32 of shape %v (%v)", name, got.DType, got.Shape, fmt.Sprint(shape), err)
	}
}
