package stage

import (
	"context"
	"time"
)

// Caller is on whose behalf a stage is called. It goes with the context of a call, through every hop.
type Caller struct {
	// Orchestrator is the id of the orchestrator whose keeper decides what the stage holds; empty is somebody else. A
	// service that is called by one belongs to it, as long as it is heard of.
	Orchestrator string
	// Rank is that orchestrator's, and no secret: who is refused a service hears its owner's.
	Rank Rank
	// Standby is that the orchestrator only wants to know whether another one owns the service: its id is not told, so that it gets
	// nothing. Only Info looks at it.
	Standby bool
	// Request is the id of the request that the work is for, if it is for one: log lines about the call carry it.
	Request string
	// Want is what the orchestrator lacks on the stage's device. Only Info looks at it.
	Want Want
	// Draining is that the orchestrator begins no more requests, and leaves when those it has are ended: who waits for the service
	// hears of it. Only Info looks at it.
	Draining bool
	// Leaving is that the orchestrator goes away: behind this look the service works for nobody. Only Info looks at it.
	Leaving bool
}

// Want is what an orchestrator's requests wait for on a device.
type Want struct {
	Bytes int64     // that the first one waiting lacks, when what is idle has made room; 0 is none
	Since time.Time // its oldest request is there since then, zero if there is none: who came first is served first
}

// DeviceShare is a device as its processes share it.
type DeviceShare struct {
	BudgetBytes  int64  // the smallest that any of them was told; 0 is no limit
	ForeignBytes int64  // of the budget, held by those who do not work for the orchestrator that asks
	ForeignWants []Want // of those, the oldest first
	// Claim is the id of the record that the processes share the device by: those with another id, or none, do not share it.
	Claim string
}

type callerKey struct{}

// WithCaller says who calls.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// CallerOf is who calls, the zero Caller if nobody said.
func CallerOf(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}
