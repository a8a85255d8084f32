package stagerpc_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	stagepb "github.com/triptych-serving/triptych/proto/triptych/stage/v1alpha1"
	tensorpb "github.com/triptych-serving/triptych/proto/triptych/tensor/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
	"github.com/triptych-serving/triptych/stage/stagetest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
)

// recite sends the answers; behind a ready it first lets the caller send everything.
func recite[Q, A any](stream grpc.BidiStreamingServer[Q, A], answers []*A, ready func(*A) bool) error {
	for _, a := range answers {
		if err := stream.Send(a); err != nil {
			return err
		}
		for err := error(nil); ready(a) && !errors.Is(err, io.EOF); _, err = stream.Recv() {
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// rawDenoiser is a peer that answers whatever it likes.
type rawDenoiser struct {
	stagepb.UnimplementedDenoiserServiceServer
	stagepb.UnimplementedStageServiceServer
	answers []*stagepb.DenoiseResponse
	info    *stagepb.GetStageInfoResponse
}

func (r *rawDenoiser) Denoise(stream grpc.BidiStreamingServer[stagepb.DenoiseRequest, stagepb.DenoiseResponse]) error {
	return recite(stream, r.answers, func(m *stagepb.DenoiseResponse) bool { return m.GetReady() != nil })
}

func (r *rawDenoiser) GetStageInfo(context.Context, *stagepb.GetStageInfoRequest) (*stagepb.GetStageInfoResponse, error) {
	return r.info, nil
}

func (r *rawDenoiser) connect(t *testing.T) stage.Denoiser {
	return stagerpc.NewDenoiser(stagetest.Connect(t, func(s grpc.ServiceRegistrar) {
		stagepb.RegisterDenoiserServiceServer(s, r)
		stagepb.RegisterStageServiceServer(s, r)
	}))
}

// TestDenoiserPeerMisuse is what a client makes of a stage that breaks the protocol.
func TestDenoiserPeerMisuse(t *testing.T) {
	type response = stagepb.DenoiseResponse
	ready := &response{Payload: &stagepb.DenoiseResponse_Ready{Ready: &stagepb.DenoiseReady{}}}
	tensors := func(role stagepb.DenoiseTensors_Role, specs ...*tensorpb.TensorSpec) *response {
		return &response{Payload: &stagepb.DenoiseResponse_Tensors{Tensors: &stagepb.DenoiseTensors{Role: role, Tensors: specs}}}
	}
	piece := func(c *tensorpb.TensorChunk) *response {
		return &response{Payload: &stagepb.DenoiseResponse_Chunk{Chunk: c}}
	}
	const preview, checkpoint, result = stagepb.DenoiseTensors_ROLE_PREVIEW, stagepb.DenoiseTensors_ROLE_CHECKPOINT, stagepb.DenoiseTensors_ROLE_RESULT
	small := spec("latents", 1, 1, 1, 1)
	whole := piece(chunk(0, 0, true, make([]byte, 4)))
	corrupt := chunk(0, 0, true, make([]byte, 4))
	corrupt.Crc32C++
	for name, c := range map[string]struct {
		answers []*response
		reason  stage.Reason
	}{
		"good":                  {[]*response{ready, {}, tensors(result, small), whole}, ""},
		"nothing":               {nil, stage.StageProtocolUnsupported},
		"result first":          {[]*response{tensors(result, small), whole}, stage.StageProtocolUnsupported},
		"no result":             {[]*response{ready}, stage.StageProtocolUnsupported},
		"ready again":           {[]*response{ready, ready}, stage.StageProtocolUnsupported},
		"chunk of nothing":      {[]*response{ready, whole}, stage.StageProtocolUnsupported},
		"no role":               {[]*response{ready, tensors(0, small), whole}, stage.StageProtocolUnsupported},
		"ready for chunk":       {[]*response{ready, tensors(preview, small), ready}, stage.StageProtocolUnsupported},
		"more after the result": {[]*response{ready, tensors(result, small), whole, ready}, stage.StageProtocolUnsupported},
		"cut off":               {[]*response{ready, tensors(result, small)}, stage.TensorInvalid},
		"corrupt":               {[]*response{ready, tensors(result, small), piece(corrupt)}, stage.ChecksumMismatch},
		"two latents":           {[]*response{ready, tensors(preview, small, small)}, stage.TensorInvalid},
		"flat latents":          {[]*response{ready, tensors(preview, spec("latents", 4))}, stage.TensorInvalid},
		"huge latents":          {[]*response{ready, tensors(result, spec("latents", 1, 4, 1<<12, 1<<13))}, stage.TensorInvalid},
		"huge checkpoint":       {[]*response{ready, tensors(checkpoint, spec("x", 1<<28), small)}, stage.TensorInvalid},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			d := (&rawDenoiser{answers: c.answers}).connect(t)
			_, err := d.Denoise(soon(t), stagetest.DenoiseRequest(), stage.DenoiseObserver{})
			if stage.ReasonOf(err) != c.reason || (err == nil) != (c.reason == "") {
				t.Errorf("got %v, expected %s", err, c.reason)
			}
		})
	}
}

func TestPeerOfAnotherProtocol(t *testing.T) {
	for _, info := range []*stagepb.GetStageInfoResponse{
		{Protocol: 2, Kind: stagepb.StageKind_STAGE_KIND_DENOISER},
		{Kind: stagepb.StageKind_STAGE_KIND_DENOISER},
		{Protocol: 1},
		{Protocol: 1, Kind: 99},
	} {
		if got, err := (&rawDenoiser{info: info}).connect(t).Info(soon(t)); stage.ReasonOf(err) != stage.StageProtocolUnsupported {
			t.Errorf("%v gave %+v, %v", info, got, err)
		}
	}
}

// rawDecoder sends these images.
type rawDecoder struct {
	stagepb.UnimplementedVaeServiceServer
	answers []*stagepb.DecodeLatentsResponse
}

func (r *rawDecoder) DecodeLatents(stream grpc.BidiStreamingServer[stagepb.DecodeLatentsRequest, stagepb.DecodeLatentsResponse]) error {
	return recite(stream, r.answers, func(m *stagepb.DecodeLatentsResponse) bool { return m.GetReady() != nil })
}

func TestDecoderPeerMisuse(t *testing.T) {
	type response = stagepb.DecodeLatentsResponse
	ready := &response{Payload: &stagepb.DecodeLatentsResponse_Ready{Ready: &stagepb.DecodeLatentsReady{}}}
	header := func(size int64, format stagepb.ImageFormat) *response {
		return &response{Payload: &stagepb.DecodeLatentsResponse_Image{Image: &stagepb.ImageHeader{SizeBytes: size, Format: format}}}
	}
	data := func(n int) *response {
		return &response{Payload: &stagepb.DecodeLatentsResponse_Data{Data: make([]byte, n)}}
	}
	for name, c := range map[string]struct {
		answers []*response
		reason  stage.Reason
	}{
		"good":           {[]*response{ready, header(6, 2), data(4), data(2)}, ""},
		"no ready":       {[]*response{header(4, 1), data(4)}, stage.StageProtocolUnsupported},
		"no header":      {[]*response{ready, data(4)}, stage.StageProtocolUnsupported},
		"unknown format": {[]*response{ready, header(4, 9), data(4)}, stage.StageProtocolUnsupported},
		"huge":           {[]*response{ready, header(1<<40, 1)}, stage.TensorInvalid},
		"empty":          {[]*response{ready, header(0, 1)}, stage.TensorInvalid},
		"cut off":        {[]*response{ready, header(6, 1), data(4)}, stage.TensorInvalid},
		"too much":       {[]*response{ready, header(6, 1), data(7)}, stage.TensorInvalid},
		"more":           {[]*response{ready, header(6, 1), data(6), data(1)}, stage.StageProtocolUnsupported},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			d := stagerpc.NewDecoder(stagetest.Connect(t, func(s grpc.ServiceRegistrar) {
				stagepb.RegisterVaeServiceServer(s, &rawDecoder{answers: c.answers})
			}))
			_, err := d.Decode(soon(t), stage.DecodeRequest{Latent: stagetest.Latent()})
			if stage.ReasonOf(err) != c.reason || (err == nil) != (c.reason == "") {
				t.Errorf("got %v, expected %s", err, c.reason)
			}
		})
	}
}

// TestUnreachable loses the peer before and in the middle of a call.
func TestUnreachable(t *testing.T) {
	script := &stagetest.Script{}
	fake := stagetest.NewEncoder(script)
	if err := fake.Load(t.Context(), stage.LoadRequest{Model: stagetest.Model}, nil); err != nil {
		t.Fatal(err)
	}
	listener := bufconn.Listen(1 << 16)
	server := grpc.NewServer(stagerpc.ServerOptions()...)
	stagerpc.RegisterEncoder(server, fake, quiet())
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:///memory", append(stagerpc.DialOptions(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	gate := script.Hold(stagetest.OpEncode, 1)
	go func() {
		<-gate.Entered()
		server.Stop()
	}()
	e := stagerpc.NewEncoder(conn)
	for _, when := range []string{"within", "before"} {
		_, err := e.Encode(soon(t), stage.EncodeRequest{Model: stagetest.Model, Prompts: stagetest.Prompts()})
		var lost *stage.Error
		if !errors.As(err, &lost) || lost.Reason != stage.StageUnreachable || lost.Metadata["stage"] != "encoder" || lost.Cause == nil {
			t.Errorf("lost %s the call: %#v", when, err)
		}
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}
