package stagerpc

import (
	"context"

	stagepb "github.com/triptych-serving/triptych/proto/triptych/stage/v1alpha1"
	tensorpb "github.com/triptych-serving/triptych/proto/triptych/tensor/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"google.golang.org/grpc"
)

// NewDecoder is the decoder at the other end of conn.
func NewDecoder(conn grpc.ClientConnInterface) stage.Decoder {
	conn = As(conn, "")
	return &decoder{resident: newResident(conn, stage.KindDecoder), rpc: stagepb.NewVaeServiceClient(conn)}
}

type decoder struct {
	resident
	rpc stagepb.VaeServiceClient
}

func (d *decoder) Decode(ctx context.Context, req stage.DecodeRequest) (stage.Image, error) {
	open, tensors, err := decodeToOpen(req)
	if err != nil {
		return stage.Image{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := d.rpc.DecodeLatents(ctx)
	if err != nil {
		return stage.Image{}, FromStatus(err, d.kind)
	}
	in := clientInbox(stream, d.kind)
	send := clientOutbox(stream, in, d.kind)
	if err := send(&stagepb.DecodeLatentsRequest{Payload: &stagepb.DecodeLatentsRequest_Open{Open: open}}); err != nil {
		return stage.Image{}, err
	}
	if _, err := first(in, "ready", (*stagepb.DecodeLatentsResponse).GetReady); err != nil {
		return stage.Image{}, err
	}
	err = SendTensors(tensors, func(c *tensorpb.TensorChunk) error {
		return send(&stagepb.DecodeLatentsRequest{Payload: &stagepb.DecodeLatentsRequest_Chunk{Chunk: c}})
	})
	if err != nil {
		return stage.Image{}, err
	}
	if err := stream.CloseSend(); err != nil {
		return stage.Image{}, FromStatus(err, d.kind)
	}
	return receiveImage(in)
}

func decodeToOpen(req stage.DecodeRequest) (*stagepb.DecodeLatentsOpen, []stage.NamedTensor, error) {
	tensors := []stage.NamedTensor{{Name: latents, Tensor: req.Latent.Tensor}}
	specs, err := Announce(tensors)
	if err != nil {
		return nil, nil, err
	}
	if err := latentForm.check(specs...); err != nil {
		return nil, nil, err
	}
	format, err := formatToProto(req.Format)
	if err != nil {
		return nil, nil, err
	}
	open := &stagepb.DecodeLatentsOpen{Model: req.Model, Latents: specs[0], Format: format, Quality: saturate(req.Quality)}
	for _, t := range req.Text {
		open.Text = append(open.Text, &stagepb.ImageText{Key: t.Key, Value: t.Value})
	}
	return open, tensors, sendable(open)
}

func receiveImage(in inbox[stagepb.DecodeLatentsResponse]) (stage.Image, error) {
	header, err := first(in, "image", (*stagepb.DecodeLatentsResponse).GetImage)
	if err != nil {
		return stage.Image{}, err
	}
	format, err := formatFromProto(header.GetFormat())
	if err != nil {
		return stage.Image{}, in.unexpected("an image format", header.GetFormat().String())
	}
	data, err := receiveFile(in, header.GetSizeBytes(), (*stagepb.DecodeLatentsResponse).GetData)
	if err != nil {
		return stage.Image{}, err
	}
	if err := end(in); err != nil {
		return stage.Image{}, err
	}
	return stage.Image{Format: format, WidthPx: int(header.GetWidthPx()), HeightPx: int(header.GetHeightPx()), Data: data}, nil
}

func (d *decoder) EncodeImage(ctx context.Context, req stage.EncodeImageRequest) (stage.Latent, error) {
	open := &stagepb.EncodeImageOpen{Model: req.Model, SizeBytes: int64(len(req.Data))}
	if err := checkFileSize(open.GetSizeBytes()); err != nil {
		return stage.Latent{}, err
	}
	if err := sendable(open); err != nil {
		return stage.Latent{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := d.rpc.EncodeImage(ctx)
	if err != nil {
		return stage.Latent{}, FromStatus(err, d.kind)
	}
	in := clientInbox(stream, d.kind)
	send := clientOutbox(stream, in, d.kind)
	if err := send(&stagepb.EncodeImageRequest{Payload: &stagepb.EncodeImageRequest_Open{Open: open}}); err != nil {
		return stage.Latent{}, err
	}
	err = sendFile(req.Data, func(part []byte) error {
		return send(&stagepb.EncodeImageRequest{Payload: &stagepb.EncodeImageRequest_Data{Data: part}})
	})
	if err != nil {
		return stage.Latent{}, err
	}
	if err := stream.CloseSend(); err != nil {
		return stage.Latent{}, FromStatus(err, d.kind)
	}
	return receiveLatent(in)
}

func receiveLatent(in inbox[stagepb.EncodeImageResponse]) (stage.Latent, error) {
	spec, err := first(in, "latents", (*stagepb.EncodeImageResponse).GetLatents)
	if err != nil {
		return stage.Latent{}, err
	}
	r, err := NewReceiver([]*tensorpb.TensorSpec{spec}, MaxLatentBytes)
	if err != nil {
		return stage.Latent{}, err
	}
	if err := latentForm.check(spec); err != nil {
		return stage.Latent{}, err
	}
	tensors, err := receiveTensors(in, r, (*stagepb.EncodeImageResponse).GetChunk)
	if err != nil {
		return stage.Latent{}, err
	}
	return stage.Latent{Tensor: tensors[0].Tensor}, end(in)
}
