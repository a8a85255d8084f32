package stage

import "github.com/triptych-serving/triptych/engine/tensor"

// EncodeRequest is a batch of prompts.
type EncodeRequest struct {
	Model   string
	Prompts []string
}

// Conditioning is what an encoder makes of prompts and only a denoiser accepts.
type Conditioning struct {
	// States is F32 [prompts, tokens, context_dim]: the last hidden state behind the final layer norm.
	States tensor.Tensor
	// DroppedTokens tells for each prompt how many tokens did not fit.
	DroppedTokens []int
}
