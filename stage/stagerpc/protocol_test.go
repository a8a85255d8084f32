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
	"google.golang.org/protobuf/types/known/emptypb"
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

type request = stagepb.WorkRequest

// openDenoise is a denoise of the fake, without guidance and with hidden states of one prompt: 192 bytes.
func openDenoise(change func(*stagepb.WorkOpen)) *request {
	text := func(v int64) *stagepb.OptionValue {
		return &stagepb.OptionValue{Value: &stagepb.OptionValue_Int{Int: v}}
	}
	open := &stagepb.WorkOpen{
		Turn: "denoise", Components: []string{unet}, Values: []*spec{tensorSpec("hidden_states", 1, 8, 6)},
		Options: map[string]*stagepb.OptionValue{
			"width": text(16), "height": text(16), "steps": text(2), "guidance_scale": {Value: &stagepb.OptionValue_Float{Float: 1}},
		},
	}
	if change != nil {
		change(open)
	}
	return &request{Payload: &stagepb.WorkRequest_Open{Open: open}}
}

var unet = stagetest.Component(stage.KindDenoiser, stagetest.Model)

func sent(c *tensorpb.TensorChunk) *request {
	return &request{Payload: &stagepb.WorkRequest_Chunk{Chunk: c}}
}

// TestMisuse is what a stage answers to callers that break the protocol.
func TestMisuse(t *testing.T) {
	fake := stagetest.New(stage.KindDenoiser, nil)
	for _, name := range []string{unet, stagetest.Model + "/controlnet"} {
		if err := fake.Load(t.Context(), stage.LoadRequest{Component: name}, nil); err != nil {
			t.Fatal(err)
		}
	}
	client := stagepb.NewWorkServiceClient(connect(t, stage.KindDenoiser, fake))
	states, photo := make([]byte, 4*8*6), stagetest.Photo(1, 1).Data
	good, all := openDenoise(nil), sent(chunk(0, 0, true, states))
	corrupt := chunk(0, 0, true, states)
	corrupt.Crc32C++
	specs := func(s ...*spec) *request { return openDenoise(func(o *stagepb.WorkOpen) { o.Values = s }) }
	control := func(o *stagepb.WorkOpen) {
		o.Components = append(o.Components, stagetest.Model+"/controlnet")
		o.Values = append(o.Values, fileSpec("control", int64(len(photo))))
	}
	resume := func(step *int32, s ...*spec) *request {
		return openDenoise(func(o *stagepb.WorkOpen) { o.ResumeStep, o.Resume = step, s })
	}
	one, hashed := int32(1), tensorSpec("latents", 1)
	hashed.Sha256 = make([]byte, 32)
	for name, c := range map[string]struct {
		messages []*request
		reason   stage.Reason
	}{
		"good":              {[]*request{good, all}, ""},
		"a file too":        {[]*request{openDenoise(control), all, sent(chunk(1, 0, true, photo))}, ""},
		"nothing":           {nil, stage.InvalidField},
		"unknown payload":   {[]*request{{}}, stage.InvalidField},
		"chunk first":       {[]*request{all}, stage.InvalidField},
		"open twice":        {[]*request{good, good}, stage.InvalidField},
		"no chunks":         {[]*request{good}, stage.TensorInvalid},
		"too many chunks":   {[]*request{good, all, all}, stage.InvalidField},
		"corrupt chunk":     {[]*request{good, sent(corrupt)}, stage.ChecksumMismatch},
		"large chunk":       {[]*request{good, sent(chunk(0, 0, true, make([]byte, 2<<20)))}, stage.TensorInvalid},
		"huge message":      {[]*request{good, sent(chunk(0, 0, true, make([]byte, 7<<20)))}, stage.TensorInvalid},
		"file cut off":      {[]*request{openDenoise(control), all, sent(chunk(1, 0, false, photo[1:]))}, stage.TensorInvalid},
		"files before":      {[]*request{openDenoise(control), sent(chunk(1, 0, true, photo)), all}, stage.TensorInvalid},
		"no values":         {[]*request{specs()}, stage.InvalidField},
		"unexpected tensor": {[]*request{specs(tensorSpec("hidden_states", 1, 8, 6), tensorSpec("latents", 1)), all, sent(chunk(1, 0, true, states[:4]))}, stage.InvalidField},
		"other rank":        {[]*request{specs(tensorSpec("hidden_states", 8, 6)), all}, stage.TensorInvalid},
		"tensor too large":  {[]*request{specs(tensorSpec("hidden_states", 1, 8, 16<<20))}, stage.TensorInvalid},
		"file too large":    {[]*request{specs(fileSpec("control", 64<<20+1))}, stage.InvalidField},
		"file of nothing":   {[]*request{specs(fileSpec("control", 0))}, stage.InvalidField},
		"resume too large":  {[]*request{resume(&one, append([]*spec{}, tensorSpec("a", 1<<26), tensorSpec("b", 1<<26), tensorSpec("c", 1<<26), tensorSpec("d", 1<<26))...)}, stage.TensorInvalid},
		"resume nowhere":    {[]*request{resume(nil, tensorSpec("latents", 1))}, stage.InvalidField},
		"resume by hash":    {[]*request{resume(&one, hashed)}, stage.InvalidField},
		"many components":   {[]*request{openDenoise(func(o *stagepb.WorkOpen) { o.Components = make([]string, 33) })}, stage.InvalidField},
		"many options": {[]*request{openDenoise(func(o *stagepb.WorkOpen) {
			for i := range 65 {
				o.Options[strings.Repeat("o", i+1)] = nil
			}
		})}, stage.InvalidField},
		"option of nothing": {[]*request{openDenoise(func(o *stagepb.WorkOpen) { o.Options["steps"] = &stagepb.OptionValue{} }), all}, stage.InvalidField},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			stream, err := client.Work(soon(t))
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
	if i, err := fake.Info(t.Context()); err != nil || i.UsedBytes != 8000 {
		t.Errorf("misuse left memory behind: %d, %v", i.UsedBytes, err)
	}
}

// TestMessageBound sends messages that grpc itself would refuse: a peer is refused by grpc, our own
// client knows beforehand.
func TestMessageBound(t *testing.T) {
	conn := connect(t, stage.KindDenoiser, stagetest.New(stage.KindDenoiser, nil))
	stream, err := stagepb.NewWorkServiceClient(conn).Work(soon(t), grpc.MaxCallSendMsgSize(1<<30))
	if err != nil {
		t.Fatal(err)
	}
	err = play(t, stream, sent(chunk(0, 0, true, make([]byte, 9<<20))))
	if status.Code(err) != codes.ResourceExhausted { // grpc's own answer
		t.Errorf("a message of 9 MiB: %v", err)
	}
	e := over(t, stage.KindEncoder, stagetest.New(stage.KindEncoder, nil))
	for _, prompt := range []string{strings.Repeat("a ", 5<<20), "\xff"} {
		req := stagetest.Request(stage.KindEncoder)
		req.Options["prompt"] = stage.TextOption(prompt)
		if _, err = e.Work(soon(t), req, stage.Observer{}); stage.ReasonOf(err) != stage.InvalidField {
			t.Errorf("a prompt of %d bytes: %v", len(prompt), err)
		}
		if _, err = e.Plan(soon(t), stage.PlanRequest{Turn: req.Turn, Components: req.Components, Options: req.Options}); stage.ReasonOf(err) != stage.InvalidField {
			t.Errorf("a plan for a prompt of %d bytes: %v", len(prompt), err)
		}
	}
}

func TestProtocolNegotiation(t *testing.T) {
	conn := connect(t, stage.KindEncoder, stagetest.New(stage.KindEncoder, nil))
	client := stagepb.NewStageServiceClient(conn)
	for _, offered := range [][]uint32{nil, {2}, {3, 2, 1}} {
		res, err := client.GetStageInfo(soon(t), &stagepb.GetStageInfoRequest{Protocols: offered})
		if err != nil || res.GetProtocol() != 2 {
			t.Errorf("offered %v: %d, %v", offered, res.GetProtocol(), err)
		}
	}
	if _, err := stagerpc.New(conn, stage.KindDecoder).Info(soon(t)); stage.ReasonOf(err) != stage.StageProtocolUnsupported {
		t.Errorf("Info of an encoder taken for a decoder: %v", err)
	}
}

// raw is a message of given bytes, whatever it is.
func raw(wire string) *emptypb.Empty {
	m := &emptypb.Empty{}
	m.ProtoReflect().SetUnknown([]byte(wire))
	return m
}

// The messages of protocol 1: a caller that offers it, and what a denoiser with one model answered.
const (
	offersOne  = "\x0a\x01\x01"
	answersOne = "\x08\x01" + "\x10\x02" + "\x1a\x02v1" + "\x22\x01h" + "\x2a\x05cpu:0" + "\x3a\x0c" + "\x0a\x01m" + "\x10\x04" + "\x42\x05euler" + "\x58\x07"
)

// TestProtocolOne: peers of protocol 1 and this one refuse each other, and both numbers are in the error, whoever made it.
func TestProtocolOne(t *testing.T) {
	says := func(who string, err error, texts ...string) {
		t.Helper()
		if stage.ReasonOf(err) != stage.StageProtocolUnsupported {
			t.Fatalf("%s: %v", who, err)
		}
		for _, text := range texts {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%s hears %q, which does not say %q", who, err, text)
			}
		}
	}
	conn := connect(t, stage.KindDenoiser, stagetest.New(stage.KindDenoiser, nil))
	err := conn.Invoke(soon(t), "/triptych.stage.v1alpha1.StageService/GetStageInfo", raw(offersOne), raw(""))
	says("a caller of protocol 1", stagerpc.FromStatus(err, 0), "stage protocol 2", "[1]")
	err = conn.Invoke(soon(t), "/triptych.stage.v1alpha1.StageService/PlanComponent", raw("\x0a\x01m"), raw(""))
	says("a caller of protocol 1 that does not ask", stagerpc.FromStatus(err, 0))

	refusal := func() error {
		e := &stage.Error{Reason: stage.StageProtocolUnsupported, Message: "no common stage protocol, offered were [2]"}
		return stagerpc.ToStatus(t.Context(), quiet(), e.With("supported", "1"))
	}
	for name, answer := range map[string]func() (any, error){
		"refuses": func() (any, error) { return nil, refusal() },
		"answers": func() (any, error) { return raw(answersOne), nil },
	} {
		peer := stagetest.Connect(t, func(r grpc.ServiceRegistrar) {
			r.RegisterService(&grpc.ServiceDesc{
				ServiceName: "triptych.stage.v1alpha1.StageService", HandlerType: (*any)(nil),
				Methods: []grpc.MethodDesc{{MethodName: "GetStageInfo", Handler: func(_ any, _ context.Context, read func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
					if err := read(raw("")); err != nil {
						return nil, err
					}
					return answer()
				}}},
			}, struct{}{})
		})
		_, err := stagerpc.New(peer, stage.KindDenoiser).Info(soon(t))
		says("this program, of a peer that "+name, err, "protocol 1", "expected 2")
	}
}
