// Package stagetest has what tests of stages share: a small fake that behaves (New), scripts that make it fail or wait where a
// test says, a connection in memory, and the contract suite that every stage has to pass wherever it runs: called directly, over
// gRPC in memory, or in a process of its own.
//
// The package may import stage, stage/stagerpc, engine/tensor, grpc and testing. Nothing but tests
// and the processes that tests start may import it.
package stagetest
