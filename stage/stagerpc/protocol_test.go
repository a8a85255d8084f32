package stagerpc_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	stagepb "github.com/triptych-serving/triptych/proto/triptych/stage/v1alpha1"
	tensorpb "github.com/triptych-serving/triptych/proto/triptych/tensor/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
	"github.com/triptych-serving/triptych/stage/stagetest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// soon ends a test that hangs.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// play sends messages whatever comes back, closes, and returns the error that the stream ends with.
func play[Q, A any](t *testing.T, stream grpc.BidiStreamingClient[Q, A], messages ...*Q) error {
	t.Helper()
	for _, m := range messages {
		if err := stream.Send(m); err != nil && !errors.Is(err, io.EOF) {
			t.Fatalf("Send: %v", err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatalf("CloseSend: %v", err)
	}
	for {
		if _, err := stream.Recv(); err != nil {
			return err
		}
	}
}

func denoiseOpen(change func(*stagepb.DenoiseOpen)) *stagepb.DenoiseRequest {
	open := &stagepb.DenoiseOpen{
		Model: stagetest.Model, LatentHeight: 4, LatentWidth: 4, Steps: 2,
		Tensors: []*tensorpb.TensorSpec{spec("hidden_states", 1, 8, 6)},
	}
	if change != nil {
		change(open)
	}
	return &stagepb.DenoiseRequest{Payload: &stagepb.DenoiseRequest_Open{Open: open}}
}

func denoiseChunk(c *tensorpb.TensorChunk) *stagepb.DenoiseRequest {
	return &stagepb.DenoiseRequest{Payload: &stagepb.DenoiseRequest_Chunk{Chunk: c}}
}

// TestDenoiseMisuse is what a denoiser answers to callers that break the protocol.
func TestDenoiseMisuse(t *testing.T) {
	fake := stagetest.NewDenoiser(nil)
	if err := fake.Load(t.Context(), stage.LoadRequest{Model: stagetest.Model}, nil); err != nil {
		t.Fatal(err)
	}
	client := stagepb.NewDenoiserServiceClient(stagetest.Connect(t, func(r grpc.ServiceRegistrar) { stagerpc.RegisterDenoiser(r, fake, quiet()) }))
	states := make([]byte, 4*8*6)
	all := denoiseChunk(chunk(0, 0, true, states))
	corrupt := chunk(0, 0, true, states)
	corrupt.Crc32C++
	specs := func(s ...*tensorpb.TensorSpec) *stagepb.DenoiseRequest {
		return denoiseOpen(func(o *stagepb.DenoiseOpen) { o.Tensors = s })
	}
	for name, c := range map[string]struct {
		messages []*stagepb.DenoiseRequest
		reason   stage.Reason
	}{
		"good":                   {[]*stagepb.DenoiseRequest{denoiseOpen(nil), all}, ""},
		"nothing":                {nil, stage.InvalidField},
		"unknown payload":        {[]*stagepb.DenoiseRequest{{}}, stage.InvalidField},
		"chunk first":            {[]*stagepb.DenoiseRequest{all}, stage.InvalidField},
		"open twice":             {[]*stagepb.DenoiseRequest{denoiseOpen(nil), denoiseOpen(nil)}, stage.InvalidField},
		"no chunks":              {[]*stagepb.DenoiseRequest{denoiseOpen(nil)}, stage.TensorInvalid},
		"too many chunks":        {[]*stagepb.DenoiseRequest{denoiseOpen(nil), all, all}, stage.InvalidField},
		"corrupt chunk":          {[]*stagepb.DenoiseRequest{denoiseOpen(nil), denoiseChunk(corrupt)}, stage.ChecksumMismatch},
		"large chunk":            {[]*stagepb.DenoiseRequest{denoiseOpen(nil), denoiseChunk(chunk(0, 0, true, make([]byte, 2<<20)))}, stage.TensorInvalid},
		"huge message":           {[]*stagepb.DenoiseRequest{denoiseOpen(nil), denoiseChunk(chunk(0, 0, true, make([]byte, 7<<20)))}, stage.TensorInvalid},
		"no tensors":             {[]*stagepb.DenoiseRequest{specs()}, stage.TensorInvalid},
		"unexpected tensor":      {[]*stagepb.DenoiseRequest{specs(spec("hidden_states", 1, 8, 6), spec("latents", 1))}, stage.TensorInvalid},
		"other name":             {[]*stagepb.DenoiseRequest{specs(spec("states", 1, 8, 6))}, stage.TensorInvalid},
		"other rank":             {[]*stagepb.DenoiseRequest{specs(spec("hidden_states", 8, 6))}, stage.TensorInvalid},
		"conditioning too large": {[]*stagepb.DenoiseRequest{specs(spec("hidden_states", 1, 1, 16<<20+1))}, stage.TensorInvalid},
		"checkpoint too large": {[]*stagepb.DenoiseRequest{denoiseOpen(func(o *stagepb.DenoiseOpen) {
			step := int32(1)
			o.ResumeStep = &step
			o.Tensors = append(o.Tensors, spec("latents", 1<<28))
		})}, stage.TensorInvalid},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			stream, err := client.Denoise(soon(t))
			if err != nil {
				t.Fatal(err)
			}
			err = play(t, stream, c.messages...)
			if c.reason == "" {
				if !errors.Is(err, io.EOF) {
					t.Fatal(err)
				}
				return
			}
			if got := stagerpc.FromStatus(err, stage.KindDenoiser); stage.ReasonOf(got) != c.reason {
				t.Errorf("got %v, expected %s", got, c.reason)
			}
		})
	}
	if i, err := fake.Info(t.Context()); err != nil || i.UsedBytes != 4000 {
		t.Errorf("misuse left memory behind: %d, %v", i.UsedBytes, err)
	}
}

// TestMessageBound sends messages that grpc itself would refuse: a peer is refused by grpc, our own
// client knows beforehand.
func TestMessageBound(t *testing.T) {
	conn := stagetest.Connect(t, func(r grpc.ServiceRegistrar) { stagerpc.RegisterDenoiser(r, stagetest.NewDenoiser(nil), quiet()) })
	stream, err := stagepb.NewDenoiserServiceClient(conn).Denoise(soon(t), grpc.MaxCallSendMsgSize(1<<30))
	if err != nil {
		t.Fatal(err)
	}
	err = play(t, stream, denoiseChunk(chunk(0, 0, true, make([]byte, 9<<20))))
	if status.Code(err) != codes.ResourceExhausted { // grpc's own answer
		t.Errorf("a message of 9 MiB: %v", err)
	}
	e := overEncoder(t, stagetest.NewEncoder(nil))
	_, err = e.Encode(soon(t), stage.EncodeRequest{Model: stagetest.Model, Prompts: []string{strings.Repeat("a ", 5<<20)}})
	if stage.ReasonOf(err) != stage.InvalidField {
		t.Errorf("a prompt of 10 MiB: %v", err)
	}
	_, err = e.Encode(soon(t), stage.EncodeRequest{Model: stagetest.Model, Prompts: []string{"\xff"}})
	if stage.ReasonOf(err) != stage.InvalidField {
		t.Errorf("a prompt that is no UTF-8: %v", err)
	}
}

// TestImageMisuse is what a decoder answers to callers that break the protocol.
func TestImageMisuse(t *testing.T) {
	fake := stagetest.NewDecoder(nil)
	if err := fake.Load(t.Context(), stage.LoadRequest{Model: stagetest.Model}, nil); err != nil {
		t.Fatal(err)
	}
	client := stagepb.NewVaeServiceClient(stagetest.Connect(t, func(r grpc.ServiceRegistrar) { stagerpc.RegisterDecoder(r, fake, quiet()) }))
	open := func(size int64) *stagepb.EncodeImageRequest {
		return &stagepb.EncodeImageRequest{Payload: &stagepb.EncodeImageRequest_Open{Open: &stagepb.EncodeImageOpen{Model: stagetest.Model, SizeBytes: size}}}
	}
	data := func(n int) *stagepb.EncodeImageRequest {
		return &stagepb.EncodeImageRequest{Payload: &stagepb.EncodeImageRequest_Data{Data: make([]byte, n)}}
	}
	for name, c := range map[string]struct {
		messages []*stagepb.EncodeImageRequest
		reason   stage.Reason
	}{
		"data first":      {[]*stagepb.EncodeImageRequest{data(4)}, stage.InvalidField},
		"no size":         {[]*stagepb.EncodeImageRequest{open(0)}, stage.InvalidField},
		"negative size":   {[]*stagepb.EncodeImageRequest{open(-1)}, stage.InvalidField},
		"large size":      {[]*stagepb.EncodeImageRequest{open(64<<20 + 1)}, stage.InvalidField},
		"cut off":         {[]*stagepb.EncodeImageRequest{open(8), data(4)}, stage.TensorInvalid},
		"too much":        {[]*stagepb.EncodeImageRequest{open(8), data(4), data(5)}, stage.TensorInvalid},
		"one more":        {[]*stagepb.EncodeImageRequest{open(8), data(8), data(1)}, stage.InvalidField},
		"empty data":      {[]*stagepb.EncodeImageRequest{open(8), data(0)}, stage.TensorInvalid},
		"large data":      {[]*stagepb.EncodeImageRequest{open(2 << 20), data(2 << 20)}, stage.TensorInvalid},
		"open twice":      {[]*stagepb.EncodeImageRequest{open(8), open(8)}, stage.TensorInvalid},
		"not an image":    {[]*stagepb.EncodeImageRequest{open(8), data(8)}, stage.InvalidField},
		"unknown payload": {[]*stagepb.EncodeImageRequest{{}}, stage.InvalidField},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			stream, err := client.EncodeImage(soon(t))
			if err != nil {
				t.Fatal(err)
			}
			if got := stagerpc.FromStatus(play(t, stream, c.messages...), stage.KindDecoder); stage.ReasonOf(got) != c.reason {
				t.Errorf("got %v, expected %s", got, c.reason)
			}
		})
	}
	decode := func(open *stagepb.DecodeLatentsOpen) error {
		stream, err := client.DecodeLatents(soon(t))
		if err != nil {
			t.Fatal(err)
		}
		return stagerpc.FromStatus(play(t, stream, &stagepb.DecodeLatentsRequest{Payload: &stagepb.DecodeLatentsRequest_Open{Open: open}}), stage.KindDecoder)
	}
	if err := decode(&stagepb.DecodeLatentsOpen{Model: stagetest.Model}); stage.ReasonOf(err) != stage.TensorInvalid {
		t.Errorf("no latents: %v", err)
	}
	if err := decode(&stagepb.DecodeLatentsOpen{Latents: spec("latents", 1, 4, 1<<13, 1<<12)}); stage.ReasonOf(err) != stage.TensorInvalid {
		t.Errorf("huge latents: %v", err)
	}
	if err := decode(&stagepb.DecodeLatentsOpen{Latents: spec("latents", 1, 4, 2, 2), Format: 42}); stage.ReasonOf(err) != stage.InvalidField {
		t.Errorf("unknown format: %v", err)
	}
}

func TestProtocolNegotiation(t *testing.T) {
	conn := stagetest.Connect(t, func(r grpc.ServiceRegistrar) { stagerpc.RegisterEncoder(r, stagetest.NewEncoder(nil), quiet()) })
	client := stagepb.NewStageServiceClient(conn)
	for _, offered := range [][]uint32{nil, {1}, {3, 2, 1}} {
		res, err := client.GetStageInfo(soon(t), &stagepb.GetStageInfoRequest{Protocols: offered})
		if err != nil || res.GetProtocol() != 1 {
			t.Errorf("offered %v: %d, %v", offered, res.GetProtocol(), err)
		}
	}
	_, err := client.GetStageInfo(soon(t), &stagepb.GetStageInfoRequest{Protocols: []uint32{2, 3}})
	var e *stage.Error
	if status.Code(err) != codes.FailedPrecondition || !errors.As(stagerpc.FromStatus(err, stage.KindEncoder), &e) ||
		e.Reason != stage.StageProtocolUnsupported || e.Metadata["supported"] != "1" {
		t.Errorf("offered 2 and 3: %v", err)
	}
	other := stagerpc.NewDecoder(conn)
	if _, err := other.Info(soon(t)); stage.ReasonOf(err) != stage.StageProtocolUnsupported {
		t.Errorf("Info of an encoder taken for a decoder: %v", err)
	}
	if _, err := other.Decode(soon(t), stage.DecodeRequest{Latent: stagetest.Latent()}); stage.ReasonOf(err) != stage.StageProtocolUnsupported {
		t.Errorf("Decode of an encoder taken for a decoder: %v", err)
	}
}
