// Package stagerpc carries the interfaces of package stage over gRPC: RegisterEncoder and its
// siblings serve a stage, NewEncoder and its siblings are a stage somewhere else. The same code
// runs on both hops, orchestrator to service over TCP and service to runtime process over a unix
// socket, so a stage behaves alike wherever it is; package stagetest has the suite that proves it.
//
// What a peer sends is bounded before memory is taken for it, and every error that leaves is a
// *stage.Error or a context's.
//
// The package may import stage, engine/tensor, the generated code under proto, and grpc.
package stagerpc

// Protocol is the stage protocol number this package speaks.
const Protocol = 1

// What the wire carries at most. A peer that exceeds it gets an error, not memory.
const (
	// ChunkBytes is what a chunk carries; MaxChunkBytes is what one may carry: messages of at most
	// 1 MiB stay in grpc's buffer pools.
	ChunkBytes    = 512 << 10
	MaxChunkBytes = 1 << 20
	// MaxMessageBytes bounds every message.
	MaxMessageBytes = 8 << 20
	// MaxTensors, MaxRank and MaxNameBytes bound an announcement.
	MaxTensors   = 16
	MaxRank      = 8
	MaxNameBytes = 128
	// MaxConditioningBytes bounds the hidden states of one request.
	MaxConditioningBytes = 64 << 20
	// MaxLatentBytes bounds a latent.
	MaxLatentBytes = 256 << 20
	// MaxTensorBytes bounds all tensors of one announcement together.
	MaxTensorBytes = 1 << 30
	// MaxImageBytes bounds an image file.
	MaxImageBytes = 64 << 20
)

// Names of tensors on the wire.
const (
	hiddenStates = "hidden_states"
	latents      = "latents"
)
