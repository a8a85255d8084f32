package stagerpc_test

import (
	"testing"

	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
	"github.com/triptych-serving/triptych/stage/stagetest"
	"google.golang.org/grpc"
)

func TestPulse(t *testing.T) {
	want := stage.Pulse{Running: 2, Moved: 1<<63 + 5}
	conn := stagetest.Connect(t, func(s grpc.ServiceRegistrar) { stagerpc.RegisterPulse(s, func() stage.Pulse { return want }) })
	if got, err := stagerpc.Pulse(t.Context(), conn); err != nil || got != want {
		t.Errorf("the pulse is %+v, %v", got, err)
	}
	none := stagetest.Connect(t, func(grpc.ServiceRegistrar) {})
	if _, err := stagerpc.Pulse(t.Context(), none); stage.ReasonOf(err) != stage.StageProtocolUnsupported {
		t.Errorf("of a process that has none: %v", err)
	}
}
