package service_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/triptych-serving/triptych/services/decoder"
	"github.com/triptych-serving/triptych/services/denoiser"
	"github.com/triptych-serving/triptych/services/encoder"
	"github.com/triptych-serving/triptych/services/internal/service"
	"github.com/triptych-serving/triptych/services/internal/servicetest"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
)

// TestEveryMethodHasAnOwner calls whatever stage services there are, method by method, for somebody else than the owner: only
// looking, for nobody, is open to all. A method that is added to a proto is tried here by itself.
func TestEveryMethodHasAnOwner(t *testing.T) {
	for kind, open := range map[stage.Kind]func(service.Options) (*service.Service, error){
		stage.KindEncoder: encoder.New, stage.KindDenoiser: denoiser.New, stage.KindDecoder: decoder.New,
	} {
		t.Run(kind.String(), func(t *testing.T) {
			s, err := open(servicetest.Options(kind, ""))
			r := servicetest.Start(t, s, err)
			if err := call(t, stagerpc.As(r.Conn, "a", ""), "/triptych.stage.v1alpha1.StageService/GetStageInfo"); err != nil {
				t.Fatal(err)
			}
			tried := 0
			for _, name := range r.Services(t) {
				if !strings.HasPrefix(name, "triptych.") {
					continue // health and reflection
				}
				d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
				if err != nil {
					t.Fatal(err)
				}
				methods := d.(protoreflect.ServiceDescriptor).Methods()
				for i := range methods.Len() {
					method := "/" + name + "/" + string(methods.Get(i).Name())
					tried++
					if err := call(t, stagerpc.As(r.Conn, "b", ""), method); stage.ReasonOf(err) != stage.StageOwned {
						t.Errorf("%s by another orchestrator: %v", method, err)
					}
					looks := strings.HasSuffix(method, "/GetStageInfo")
					if err := call(t, r.Conn, method); stage.ReasonOf(err) != stage.StageOwned && (!looks || err != nil) {
						t.Errorf("%s by somebody: %v", method, err)
					}
				}
			}
			if tried < 8 {
				t.Errorf("only %d methods were tried", tried)
			}
		})
	}
}

// call makes a call of any method with an empty message.
func call(t *testing.T, conn grpc.ClientConnInterface, method string) error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
	if err == nil {
		if err = stream.SendMsg(&emptypb.Empty{}); err == nil || errors.Is(err, io.EOF) {
			_ = stream.CloseSend()
			err = stream.RecvMsg(&emptypb.Empty{})
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return stagerpc.FromStatus(err, 0)
}

// TestOwner: a service that was told whom it works for works for nobody else.
func TestOwner(t *testing.T) {
	o := servicetest.Options(stage.KindDenoiser, "")
	o.Owner = "a"
	s, err := denoiser.New(o)
	r := servicetest.Start(t, s, err)
	for id, want := range map[string]stage.Reason{"a": "", "b": stage.StageOwned} {
		if err := stagerpc.New(stagerpc.As(r.Conn, id, ""), stage.KindDenoiser).Drain(t.Context()); stage.ReasonOf(err) != want || (want == "") != (err == nil) {
			t.Errorf("Drain by %q: %v", id, err)
		}
	}
}
