package stagerpc_test

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
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

// rawStage is a peer that answers whatever it likes.
type rawStage struct {
	stagepb.UnimplementedWorkServiceServer
	stagepb.UnimplementedStageServiceServer
	answers []*stagepb.WorkResponse
	info    *stagepb.GetStageInfoResponse
}

// Work sends the answers; behind a ready it first lets the caller send everything.
func (r *rawStage) Work(stream grpc.BidiStreamingServer[stagepb.WorkRequest, stagepb.WorkResponse]) error {
	for _, a := range r.answers {
		if err := stream.Send(a); err != nil {
			return err
		}
		for err := error(nil); a.GetReady() != nil && !errors.Is(err, io.EOF); _, err = stream.Recv() {
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *rawStage) GetStageInfo(context.Context, *stagepb.GetStageInfoRequest) (*stagepb.GetStageInfoResponse, error) {
	return r.info, nil
}

func (r *rawStage) connect(t *testing.T) stage.Stage {
	return stagerpc.New(stagetest.Connect(t, func(s grpc.ServiceRegistrar) {
		stagepb.RegisterWorkServiceServer(s, r)
		stagepb.RegisterStageServiceServer(s, r)
	}), stage.KindDenoiser)
}

// TestPeerMisuse is what a client makes of a stage that breaks the protocol.
func TestPeerMisuse(t *testing.T) {
	type response = stagepb.WorkResponse
	wants := func(wanted ...uint32) *response {
		return &response{Payload: &stagepb.WorkResponse_Ready{Ready: &stagepb.WorkReady{Wanted: wanted}}}
	}
	values := func(role stagepb.WorkValues_Role, specs ...*spec) *response {
		return &response{Payload: &stagepb.WorkResponse_Values{Values: &stagepb.WorkValues{Role: role, Values: specs}}}
	}
	piece := func(c *tensorpb.TensorChunk) *response {
		return &response{Payload: &stagepb.WorkResponse_Chunk{Chunk: c}}
	}
	const preview, checkpoint = stagepb.WorkValues_ROLE_PREVIEW, stagepb.WorkValues_ROLE_CHECKPOINT
	const unit, result = stagepb.WorkValues_ROLE_UNIT, stagepb.WorkValues_ROLE_RESULT
	ready, small, whole := wants(0), tensorSpec("latents", 1, 1, 1, 1), piece(chunk(0, 0, true, make([]byte, 4)))
	corrupt := chunk(0, 0, true, make([]byte, 4))
	corrupt.Crc32C++
	of := func(u, n int32) *spec {
		s := tensorSpec("latents", 1)
		s.Unit, s.Units = u, n
		return s
	}
	for name, c := range map[string]struct {
		answers []*response
		reason  stage.Reason
	}{
		"good":                  {[]*response{ready, {}, values(result, small), whole}, ""},
		"nothing wanted":        {[]*response{wants(), values(result, small), whole}, ""},
		"a file":                {[]*response{ready, values(result, fileSpec("image", 6)), piece(chunk(0, 0, false, make([]byte, 4))), piece(chunk(0, 4, true, make([]byte, 2)))}, ""},
		"units":                 {[]*response{ready, values(unit, of(0, 2)), whole, values(unit, of(1, 2)), whole, values(result)}, ""},
		"nothing":               {nil, stage.StageProtocolUnsupported},
		"result first":          {[]*response{values(result, small), whole}, stage.StageProtocolUnsupported},
		"no result":             {[]*response{ready}, stage.StageProtocolUnsupported},
		"ready again":           {[]*response{ready, ready}, stage.StageProtocolUnsupported},
		"wants twice":           {[]*response{wants(0, 0), values(result, small), whole}, stage.StageProtocolUnsupported},
		"wants what is not":     {[]*response{wants(1), values(result, small), whole}, stage.StageProtocolUnsupported},
		"wants a lot":           {[]*response{wants(slices.Repeat([]uint32{1 << 31}, 1<<20)...)}, stage.StageProtocolUnsupported},
		"chunk of nothing":      {[]*response{ready, whole}, stage.StageProtocolUnsupported},
		"no role":               {[]*response{ready, values(0, small), whole}, stage.StageProtocolUnsupported},
		"unknown role":          {[]*response{ready, values(99, small), whole}, stage.StageProtocolUnsupported},
		"ready for chunk":       {[]*response{ready, values(preview, small), ready}, stage.StageProtocolUnsupported},
		"more after the result": {[]*response{ready, values(result, small), whole, ready}, stage.StageProtocolUnsupported},
		"two units at once":     {[]*response{ready, values(unit, of(0, 2), of(1, 2)), whole, piece(chunk(1, 0, true, make([]byte, 4))), values(result)}, stage.StageProtocolUnsupported},
		"unit of a whole":       {[]*response{ready, values(unit, small), whole, values(result)}, stage.StageProtocolUnsupported},
		"unit beyond":           {[]*response{ready, values(unit, of(2, 2)), whole}, stage.TensorInvalid},
		"cut off":               {[]*response{ready, values(result, small)}, stage.TensorInvalid},
		"file cut off":          {[]*response{ready, values(result, fileSpec("image", 6)), piece(chunk(0, 0, false, make([]byte, 4)))}, stage.TensorInvalid},
		"file too long":         {[]*response{ready, values(result, fileSpec("image", 6)), piece(chunk(0, 0, true, make([]byte, 7)))}, stage.TensorInvalid},
		"corrupt":               {[]*response{ready, values(result, small), piece(corrupt)}, stage.ChecksumMismatch},
		"huge latents":          {[]*response{ready, values(result, tensorSpec("latents", 1, 4, 1<<12, 1<<13))}, stage.TensorInvalid},
		"huge checkpoint":       {[]*response{ready, values(checkpoint, slices.Repeat([]*spec{tensorSpec("x", 1<<26)}, 5)...)}, stage.TensorInvalid},
		"huge file":             {[]*response{ready, values(result, fileSpec("image", 1<<40))}, stage.InvalidField},
		"empty file":            {[]*response{ready, values(result, fileSpec("image", 0))}, stage.InvalidField},
		"many values":           {[]*response{ready, values(result, slices.Repeat([]*spec{small}, 33)...)}, stage.TensorInvalid},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			_, err := (&rawStage{answers: c.answers}).connect(t).Work(soon(t), stagetest.Request(stage.KindDenoiser), stage.Observer{Unit: func(stage.Value) {}})
			if stage.ReasonOf(err) != c.reason || (err == nil) != (c.reason == "") {
				t.Errorf("got %v, expected %s", err, c.reason)
			}
		})
	}
	d := (&rawStage{answers: []*response{ready, values(unit, of(0, 2)), whole, values(result)}}).connect(t)
	if _, err := d.Work(soon(t), stagetest.Request(stage.KindDenoiser), stage.Observer{}); stage.ReasonOf(err) != stage.StageProtocolUnsupported {
		t.Errorf("a unit that nobody asked for: %v", err)
	}
}

func TestPeerOfAnotherKind(t *testing.T) {
	for _, info := range []*stagepb.GetStageInfoResponse{
		{Protocol: 3, Kind: stagepb.StageKind_STAGE_KIND_DENOISER},
		{Kind: stagepb.StageKind_STAGE_KIND_DENOISER},
		{Protocol: 2},
		{Protocol: 2, Kind: 99},
	} {
		if got, err := (&rawStage{info: info}).connect(t).Info(soon(t)); stage.ReasonOf(err) != stage.StageProtocolUnsupported {
			t.Errorf("%v gave %+v, %v", info, got, err)
		}
	}
}

// TestPeerTellsTooMuch: a model whose recipe is more than is believed has a problem instead; lists are cut.
func TestPeerTellsTooMuch(t *testing.T) {
	long := strings.Repeat("n", 8193)
	recipe := func(r *stagepb.Recipe) []*stagepb.Recipe { return []*stagepb.Recipe{r} }
	turn := func(turn *stagepb.Turn) []*stagepb.Recipe {
		return recipe(&stagepb.Recipe{Turns: []*stagepb.Turn{turn}})
	}
	ports := func(n int) []*stagepb.Port { return slices.Repeat([]*stagepb.Port{{}}, n) }
	cases := map[string][]*stagepb.Recipe{
		"good":    recipe(&stagepb.Recipe{Family: long[1:], Turns: slices.Repeat([]*stagepb.Turn{{Takes: ports(256)}}, 256)}),
		"recipes": slices.Repeat([]*stagepb.Recipe{{}}, 257),
		"family":  recipe(&stagepb.Recipe{Family: long}),
		"options": recipe(&stagepb.Recipe{Options: slices.Repeat([]*stagepb.OptionSpec{{}}, 257)}),
		"default": recipe(&stagepb.Recipe{Options: []*stagepb.OptionSpec{{Default: &stagepb.OptionValue{Value: &stagepb.OptionValue_Text{Text: long}}}}}),
		"choices": recipe(&stagepb.Recipe{Options: []*stagepb.OptionSpec{{Choices: make([]string, 257)}}}),
		"choice":  recipe(&stagepb.Recipe{Options: []*stagepb.OptionSpec{{Choices: []string{long}}}}),
		"aliases": recipe(&stagepb.Recipe{Options: []*stagepb.OptionSpec{{Aliases: slices.Repeat([]*stagepb.OptionSpec_Alias{{}}, 257)}}}),
		"others": recipe(&stagepb.Recipe{Options: []*stagepb.OptionSpec{{
			Aliases: []*stagepb.OptionSpec_Alias{{Others: []*stagepb.OptionSpec_Other{{Choice: long}}}},
		}}}),
		"turns":       recipe(&stagepb.Recipe{Turns: slices.Repeat([]*stagepb.Turn{{}}, 257)}),
		"takes":       turn(&stagepb.Turn{Takes: ports(257)}),
		"dimensions":  turn(&stagepb.Turn{Gives: []*stagepb.Port{{Shape: make([]string, 257)}}}),
		"members":     turn(&stagepb.Turn{Members: slices.Repeat([]*stagepb.Member{{}}, 257)}),
		"with":        turn(&stagepb.Turn{Members: []*stagepb.Member{{}, {With: long}}}),
		"turn option": turn(&stagepb.Turn{Options: []string{"", long}}),
	}
	for name, recipes := range cases {
		told := &stagepb.GetStageInfoResponse{Protocol: 2, Kind: stagepb.StageKind_STAGE_KIND_DENOISER, Models: []*stagepb.ModelInfo{{Name: "m", Recipes: recipes}, {Name: "n"}}}
		i, err := (&rawStage{info: told}).connect(t).Info(soon(t))
		if err != nil || len(i.Models) != 2 || i.Models[1].Problem != "" {
			t.Fatalf("%s: %+v, %v", name, i.Models, err)
		}
		if m := i.Models[0]; (m.Problem == "") != (name == "good") || (len(m.Recipes) == 0) != (name != "good") {
			t.Errorf("%s: %d recipes, problem %q", name, len(m.Recipes), m.Problem)
		}
	}
	told := &stagepb.GetStageInfoResponse{
		Protocol: 2, Kind: stagepb.StageKind_STAGE_KIND_DENOISER, Models: slices.Repeat([]*stagepb.ModelInfo{{}}, 5000),
		Components: slices.Repeat([]*stagepb.ComponentInfo{{Warnings: make([]string, 100), Problem: strings.Repeat("p", 1<<14)}}, 50),
	}
	i, err := (&rawStage{info: told}).connect(t).Info(soon(t))
	if err != nil || len(i.Models) != 4096 || len(i.Components[0].Warnings) != 64 || len(i.Components[0].Problem) > 5000 {
		t.Errorf("%d models, %d warnings, %v", len(i.Models), len(i.Components[0].Warnings), err)
	}
}

// TestUnreachable loses the peer before and in the middle of a call.
func TestUnreachable(t *testing.T) {
	script := &stagetest.Script{}
	fake, req := stagetest.New(stage.KindEncoder, script), stagetest.Request(stage.KindEncoder)
	if err := fake.Load(t.Context(), stage.LoadRequest{Component: req.Components[0]}, nil); err != nil {
		t.Fatal(err)
	}
	listener := bufconn.Listen(1 << 16)
	server := grpc.NewServer(stagerpc.ServerOptions()...)
	stagerpc.Register(server, stage.KindEncoder, fake, quiet())
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
	e := stagerpc.New(conn, stage.KindEncoder)
	for _, when := range []string{"within", "before"} {
		_, err := e.Work(soon(t), req, stage.Observer{})
		var lost *stage.Error
		if !errors.As(err, &lost) || lost.Reason != stage.StageUnreachable || lost.Metadata["stage"] != "encoder" || lost.Cause == nil {
			t.Errorf("lost %s the call: %#v", when, err)
		}
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}
