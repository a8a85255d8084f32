package fleet

import (
	"testing"

	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
)

// TestDecide: what an orchestrator is, by what it was and whose services it sees.
func TestDecide(t *testing.T) {
	for _, c := range []struct {
		was  Standing
		seen []tenure
		want Standing
	}{
		{Alone, nil, Alone},
		{Alone, []tenure{pending, unknown}, Alone},
		{Alone, []tenure{pending, mine}, Owner},
		{Alone, []tenure{pending, elder}, Standby},
		{Owner, []tenure{mine, elder}, Standby},
		{Owner, []tenure{mine, younger}, Owner},
		{Owner, []tenure{mine, nameless}, Owner},
		{Owner, []tenure{unknown, unknown}, Alone},
		{Owner, []tenure{younger, unknown}, Standby},
		{Alone, []tenure{younger, pending}, Alone}, // what is asked may be its own
		{Alone, []tenure{younger, younger}, Standby},
		{Alone, []tenure{nameless}, Standby},
		{Standby, []tenure{younger, pending}, Standby}, // a replica that is new is the owner's
		{Standby, []tenure{younger, vacant}, Standby},
		{Standby, []tenure{nameless, mine}, Standby},
		{Standby, []tenure{vacant, unknown}, Alone},
		{Standby, []tenure{mine, vacant}, Owner},
		{Standby, []tenure{drained, drained}, Heir},
		{Standby, []tenure{drained, unknown}, Heir},
		{Standby, []tenure{drained, elder}, Standby}, // which may have yet to hear of it
		{Alone, []tenure{drained, pending}, Alone},
		{Alone, []tenure{drained, drained}, Heir},
		{Owner, []tenure{drained, mine}, Owner},
		{Owner, []tenure{drained, drained}, Heir},
		{Heir, []tenure{drained, vacant}, Heir}, // what starts again is the owner's
		{Heir, []tenure{drained, younger}, Standby},
		{Heir, []tenure{drained, mine}, Heir},
		{Heir, []tenure{vacant, vacant}, Alone},
	} {
		seen := map[*member]tenure{}
		for _, t := range c.seen {
			seen[&member{}] = t
		}
		if got := decide(c.was, seen); got != c.want {
			t.Errorf("%v that sees %v is %v, want %v", c.was, c.seen, got, c.want)
		}
	}
}

// TestOwned: a refusal tells whose the service is.
func TestOwned(t *testing.T) {
	s := standings{rank: "2-b"}
	for by, want := range map[stage.Rank]tenure{"": nameless, "1-z": elder, "2-a": elder, "2-b": mine, "2-c": younger, "3-a": younger} {
		if got := s.owned(stagerpc.Owned(stage.KindDecoder, by, false)); got != want {
			t.Errorf("of rank %q: %d, want %d", by, got, want)
		}
		if want == elder || want == younger {
			want = drained
		}
		if got := s.owned(stagerpc.Owned(stage.KindDecoder, by, true)); got != want {
			t.Errorf("of rank %q that drains: %d, want %d", by, got, want)
		}
	}
}
