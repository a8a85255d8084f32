package stagerpc

import (
	"log/slog"

	stagepb "github.com/triptych-serving/triptych/proto/triptych/stage/v1alpha1"
	tensorpb "github.com/triptych-serving/triptych/proto/triptych/tensor/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"google.golang.org/grpc"
)

// RegisterDecoder serves d as StageService and VaeService. log gets the causes of errors that
// callers do not see (see ToStatus).
func RegisterDecoder(s grpc.ServiceRegistrar, d stage.Decoder, log *slog.Logger) {
	edge := newEdge(stage.KindDecoder, log)
	registerResident(s, d, edge)
	stagepb.RegisterVaeServiceServer(s, &decoderServer{stage: d, edge: edge})
}

type decoderServer struct {
	stagepb.UnimplementedVaeServiceServer
	stage stage.Decoder
	edge  edge
}

type (
	decodeServerStream = grpc.BidiStreamingServer[stagepb.DecodeLatentsRequest, stagepb.DecodeLatentsResponse]
	encodeServerStream = grpc.BidiStreamingServer[stagepb.EncodeImageRequest, stagepb.EncodeImageResponse]
)

func (s *decoderServer) DecodeLatents(stream decodeServerStream) error {
	return s.edge.status(stream.Context(), s.decode(stream))
}

func (s *decoderServer) EncodeImage(stream encodeServerStream) error {
	return s.edge.status(stream.Context(), s.encodeImage(stream))
}

func (s *decoderServer) decode(stream decodeServerStream) error {
	in, send := serverInbox(stream), serverOutbox(stream)
	open, err := first(in, "open", (*stagepb.DecodeLatentsRequest).GetOpen)
	if err != nil {
		return err
	}
	var specs []*tensorpb.TensorSpec
	if open.GetLatents() != nil {
		specs = append(specs, open.GetLatents())
	}
	r, err := NewReceiver(specs, MaxLatentBytes)
	if err != nil {
		return err
	}
	if err := latentForm.check(specs...); err != nil {
		return err
	}
	format, err := formatFromProto(open.GetFormat())
	if err != nil {
		return err
	}
	if err := send(&stagepb.DecodeLatentsResponse{Payload: &stagepb.DecodeLatentsResponse_Ready{Ready: &stagepb.DecodeLatentsReady{}}}); err != nil {
		return err
	}
	tensors, err := receiveTensors(in, r, (*stagepb.DecodeLatentsRequest).GetChunk)
	if err != nil {
		return err
	}
	if err := end(in); err != nil {
		return err
	}
	req := stage.DecodeRequest{
		Model: open.GetModel(), Latent: stage.Latent{Tensor: tensors[0].Tensor}, Format: format, Quality: int(open.GetQuality()),
	}
	for _, t := range open.GetText() {
		req.Text = append(req.Text, stage.ImageText{Key: t.GetKey(), Value: t.GetValue()})
	}
	image, err := s.stage.Decode(Incoming(stream.Context()), req)
	if err != nil {
		return err
	}
	return sendImage(send, image)
}

func sendImage(send outbox[stagepb.DecodeLatentsResponse], image stage.Image) error {
	if err := checkFileSize(int64(len(image.Data))); err != nil {
		return fault("the stage made an image that cannot be sent", err)
	}
	format, err := formatToProto(image.Format)
	if err != nil {
		return fault("the stage made an image that cannot be sent", err)
	}
	err = send(&stagepb.DecodeLatentsResponse{Payload: &stagepb.DecodeLatentsResponse_Image{Image: &stagepb.ImageHeader{
		Format: format, WidthPx: saturate(image.WidthPx), HeightPx: saturate(image.HeightPx), SizeBytes: int64(len(image.Data)),
	}}})
	if err != nil {
		return err
	}
	return sendFile(image.Data, func(part []byte) error {
		return send(&stagepb.DecodeLatentsResponse{Payload: &stagepb.DecodeLatentsResponse_Data{Data: part}})
	})
}

func (s *decoderServer) encodeImage(stream encodeServerStream) error {
	in, send := serverInbox(stream), serverOutbox(stream)
	open, err := first(in, "open", (*stagepb.EncodeImageRequest).GetOpen)
	if err != nil {
		return err
	}
	if err := checkFileSize(open.GetSizeBytes()); err != nil {
		return err
	}
	data, err := receiveFile(in, open.GetSizeBytes(), (*stagepb.EncodeImageRequest).GetData)
	if err != nil {
		return err
	}
	if err := end(in); err != nil {
		return err
	}
	latent, err := s.stage.EncodeImage(Incoming(stream.Context()), stage.EncodeImageRequest{Model: open.GetModel(), Data: data})
	if err != nil {
		return err
	}
	tensors := []stage.NamedTensor{{Name: latents, Tensor: latent.Tensor}}
	specs, err := announceResult(tensors)
	if err != nil {
		return err
	}
	if err := send(&stagepb.EncodeImageResponse{Payload: &stagepb.EncodeImageResponse_Latents{Latents: specs[0]}}); err != nil {
		return err
	}
	return SendTensors(tensors, func(c *tensorpb.TensorChunk) error {
		return send(&stagepb.EncodeImageResponse{Payload: &stagepb.EncodeImageResponse_Chunk{Chunk: c}})
	})
}
