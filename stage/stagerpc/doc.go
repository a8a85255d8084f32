// Package stagerpc carries stage.Stage over gRPC: Register serves a stage, New is a stage somewhere else. The same code
// runs on both hops, orchestrator to service over TCP and service to runtime process over a unix
// socket, so a stage behaves alike wherever it is; package stagetest has the suite that proves it.
//
// What a peer sends is bounded before memory is taken for it, and every error that leaves is a
// *stage.Error or a context's.
//
// The package may import stage, engine/tensor, the generated code under proto, and grpc.
package stagerpc

// Protocol is the stage protocol number this package speaks.
const Protocol = 2

// What the wire carries at most. A peer that exceeds it gets an error, not memory.
const (
	// ChunkBytes is what a chunk carries; MaxChunkBytes is what one may carry: messages of at most
	// 1 MiB stay in grpc's buffer pools.
	ChunkBytes    = 512 << 10
	MaxChunkBytes = 1 << 20
	// MaxMessageBytes bounds every message.
	MaxMessageBytes = 8 << 20
	// MaxValues, MaxRank and MaxNameBytes bound an announcement.
	MaxValues    = 32
	MaxRank      = 8
	MaxNameBytes = 128
	// MaxTensorBytes and MaxFileBytes bound a value, MaxBytes all of one announcement together.
	MaxTensorBytes = 256 << 20
	MaxFileBytes   = 64 << 20
	MaxBytes       = 1 << 30
	// MaxKeptBytes and MaxKept bound the values that a server keeps, so that they need not come again.
	MaxKeptBytes = 16 << 20
	MaxKept      = 32
)

// What is believed of a peer at most.
const (
	maxModels     = 4096 // likewise components
	maxEntries    = 256  // of each list of a model
	maxTextBytes  = 8192 // of each text of a model
	maxMembers    = 32   // components of a request
	maxOptions    = 64   // of a request
	maxWarnings   = 64   // of a component and of a result
	maxWants      = 16   // of others; the oldest come first
	maxMediaBytes = 128
)
