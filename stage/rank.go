package stage

import (
	"crypto/rand"
	"fmt"
	"time"
)

// Rank orders orchestrators by age, and those of one millisecond by chance. Empty is of one that tells none.
type Rank string

// NewRank is the rank of an orchestrator that starts at a time.
func NewRank(started time.Time) Rank {
	return Rank(fmt.Sprintf("%015d-%s", started.UnixMilli(), rand.Text()))
}

// Elder tells whether both ranks are told and r's orchestrator has started before the other's.
func (r Rank) Elder(other Rank) bool { return r != "" && other != "" && r < other }
