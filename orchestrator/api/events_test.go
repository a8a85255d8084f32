package api

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/triptych-serving/triptych/orchestrator/residency"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
)

// TestNamesOfDecisions: actions and classes are numbers on the wire, of the same names.
func TestNamesOfDecisions(t *testing.T) {
	for n, name := range triptychv1alpha1.ResidencyEvent_Action_name {
		if want := strings.TrimPrefix(strings.ToLower(name), "action_"); residency.Action(n).String() != want {
			t.Errorf("action %d is %v here and %s on the wire", n, residency.Action(n), want)
		}
	}
	classes := triptychv1alpha1.ResidencyEvent_Class(0).Descriptor().Values()
	for n, name := range triptychv1alpha1.ResidencyEvent_Class_name {
		if o := classes.ByNumber(protoreflect.EnumNumber(n)).Options().(*descriptorpb.EnumValueOptions); o.GetDeprecated() {
			continue // no longer told
		}
		if want := strings.TrimPrefix(strings.ToLower(name), "class_"); n > 0 && residency.Class(n).String() != want {
			t.Errorf("class %d is %v here and %s on the wire", n, residency.Class(n), want)
		}
	}
}
