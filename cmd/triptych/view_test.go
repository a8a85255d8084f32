package main

import (
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	for _, c := range []struct {
		steps int64
		took  time.Duration
		want  string
	}{{0, time.Second, ""}, {0, 0, ""}, {3, 2 * time.Second, ", 1.5 steps/s"}, {2, 9 * time.Second, ", 4.5 s/step"}} {
		if got := pace(c.steps, c.took); got != c.want {
			t.Errorf("%d steps in %v: %q, want %q", c.steps, c.took, got, c.want)
		}
	}
}
