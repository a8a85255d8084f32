package stagerpc

import (
	"context"
	"log/slog"

	stagepb "github.com/triptych-serving/triptych/proto/triptych/stage/v1alpha1"
	tensorpb "github.com/triptych-serving/triptych/proto/triptych/tensor/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"google.golang.org/grpc"
)

// RegisterEncoder serves e as StageService and TextEncoderService. log gets the causes of errors
// that callers do not see (see ToStatus).
func RegisterEncoder(s grpc.ServiceRegistrar, e stage.Encoder, log *slog.Logger) {
	edge := newEdge(stage.KindEncoder, log)
	registerResident(s, e, edge)
	stagepb.RegisterTextEncoderServiceServer(s, &encoderServer{stage: e, edge: edge})
}

type encoderServer struct {
	stagepb.UnimplementedTextEncoderServiceServer
	stage stage.Encoder
	edge  edge
}

func (s *encoderServer) Encode(req *stagepb.EncodeRequest, stream grpc.ServerStreamingServer[stagepb.EncodeResponse]) error {
	return s.edge.status(stream.Context(), s.encode(req, stream))
}

func (s *encoderServer) encode(req *stagepb.EncodeRequest, stream grpc.ServerStreamingServer[stagepb.EncodeResponse]) error {
	conditioning, err := s.stage.Encode(Incoming(stream.Context()), stage.EncodeRequest{Model: req.GetModel(), Prompts: req.GetPrompts()})
	if err != nil {
		return err
	}
	tensors := []stage.NamedTensor{{Name: hiddenStates, Tensor: conditioning.States}}
	specs, err := announceResult(tensors)
	if err != nil {
		return err
	}
	header := &stagepb.EncodeHeader{Tensors: specs}
	for _, n := range conditioning.DroppedTokens {
		header.DroppedTokens = append(header.DroppedTokens, saturate(n))
	}
	send := serverOutbox(stream)
	if err := send(&stagepb.EncodeResponse{Payload: &stagepb.EncodeResponse_Header{Header: header}}); err != nil {
		return err
	}
	return SendTensors(tensors, func(c *tensorpb.TensorChunk) error {
		return send(&stagepb.EncodeResponse{Payload: &stagepb.EncodeResponse_Chunk{Chunk: c}})
	})
}

// NewEncoder is the encoder at the other end of conn.
func NewEncoder(conn grpc.ClientConnInterface) stage.Encoder {
	conn = As(conn, "")
	return &encoder{resident: newResident(conn, stage.KindEncoder), rpc: stagepb.NewTextEncoderServiceClient(conn)}
}

type encoder struct {
	resident
	rpc stagepb.TextEncoderServiceClient
}

func (e *encoder) Encode(ctx context.Context, req stage.EncodeRequest) (stage.Conditioning, error) {
	m := &stagepb.EncodeRequest{Model: req.Model, Prompts: req.Prompts}
	if err := sendable(m); err != nil {
		return stage.Conditioning{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := e.rpc.Encode(ctx, m)
	if err != nil {
		return stage.Conditioning{}, FromStatus(err, e.kind)
	}
	in := clientInbox(stream, e.kind)
	header, err := first(in, "header", (*stagepb.EncodeResponse).GetHeader)
	if err != nil {
		return stage.Conditioning{}, err
	}
	r, err := NewReceiver(header.GetTensors(), MaxConditioningBytes)
	if err != nil {
		return stage.Conditioning{}, err
	}
	if err := conditioningForm.check(header.GetTensors()...); err != nil {
		return stage.Conditioning{}, err
	}
	tensors, err := receiveTensors(in, r, (*stagepb.EncodeResponse).GetChunk)
	if err != nil {
		return stage.Conditioning{}, err
	}
	if err := end(in); err != nil {
		return stage.Conditioning{}, err
	}
	conditioning := stage.Conditioning{States: tensors[0].Tensor}
	for _, n := range header.GetDroppedTokens() {
		conditioning.DroppedTokens = append(conditioning.DroppedTokens, int(n))
	}
	return conditioning, nil
}
