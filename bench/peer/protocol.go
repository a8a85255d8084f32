// Package peer runs an inference engine in a child process that speaks JSON lines, whatever it is written in: our own
// and those it is compared with.
//
// A child is started as PROGRAM... MODEL_DIR NETWORK THREADS. Its first line is a Hello; then it answers each line with
// a Reply. Tensors are raw little-endian files beside each other, so that no clock sees them parsed.
package peer

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
)

// The networks a child can be asked for.
const (
	TextEncoder = "text_encoder" // input_ids I64 [B, T] to states [B, T, C], of Stable Diffusion XL those of the last layer but one
	// TextEncoder2 is the second of Stable Diffusion XL: input_ids to [B, T*C + P], the states likewise and behind them the
	// projected pooled state.
	TextEncoder2 = "text_encoder_2"
	UNet         = "unet"        // sample [B, C, h, w], timestep [1], encoder_hidden_states [B, T, D], of XL text_embeds [B, P], time_ids [B, 6] to [B, C, h, w]
	VAEDecoder   = "vae_decoder" // latents [B, C, h, w], unscaled, to [B, 3, 8h, 8w]
	Upscaler     = "upscaler"    // image [1, 3, h, w] in 0 to 1 to [1, 3, 4h, 4w]
	Image        = "image"       // a prompt to a PNG file
)

// The names of inputs.
const (
	InputIDs      = "input_ids"
	InputSample   = "sample"
	InputTimestep = "timestep"
	InputStates   = "encoder_hidden_states"
	InputPooled   = "text_embeds"
	InputTimeIDs  = "time_ids"
	InputLatents  = "latents"
	InputImage    = "image"
)

// Hello is the first line: what the child is, or why it cannot be had.
type Hello struct {
	Error    string            `json:"error,omitempty"`
	Engine   string            `json:"engine,omitempty"`
	Versions map[string]string `json:"versions,omitempty"`
	Threads  int               `json:"threads,omitempty"`
	Notes    map[string]any    `json:"notes,omitempty"`
	// LoadSeconds is from the weights on disk, in the page cache, to ready for the first run. An engine that loads for
	// certain shapes tells it, and more notes, in the first Reply.
	LoadSeconds float64 `json:"load_seconds,omitempty"`
}

// Tensor is a tensor in a file.
type Tensor struct {
	Shape []int  `json:"shape"`
	DType string `json:"dtype,omitempty"` // "f32" or "i64"
	File  string `json:"file"`
}

// ImageRequest is what to draw, by DDIM. Sides are in pixels.
type ImageRequest struct {
	Prompt         string  `json:"prompt"`
	NegativePrompt string  `json:"negative_prompt"`
	Steps          int     `json:"steps"`
	GuidanceScale  float64 `json:"guidance_scale"`
	Height         int     `json:"height"`
	Width          int     `json:"width"`
	Seed           uint64  `json:"seed"`
}

// Request is a line to a child: op "run" with inputs, "image", "rss" or "reset_rss".
type Request struct {
	Op     string            `json:"op"`
	Inputs map[string]Tensor `json:"inputs,omitempty"`
	*ImageRequest
}

// Reply is its answer. Seconds are taken by the child around the work of the network alone. The file of Output is the
// caller's to delete; an engine that cannot be given inputs has no Output.
type Reply struct {
	Error       string         `json:"error,omitempty"`
	Seconds     float64        `json:"seconds,omitempty"`
	Output      *Tensor        `json:"output,omitempty"`
	LoadSeconds float64        `json:"load_seconds,omitempty"`
	Notes       map[string]any `json:"notes,omitempty"`
	PeakRSS     int64          `json:"peak_rss_bytes,omitempty"`
	PeakLedger  int64          `json:"peak_ledger_bytes,omitempty"` // of the device; 0 of a child that has no ledger
}

// WriteF32 writes a tensor's file.
func WriteF32(path string, values []float32, shape ...int) (Tensor, error) {
	data := make([]byte, 0, 4*len(values))
	for _, v := range values {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
	}
	return Tensor{Shape: shape, DType: "f32", File: path}, os.WriteFile(path, data, 0o600)
}

// WriteI64 writes the file of a tensor of ids.
func WriteI64(path string, values []int32, shape ...int) (Tensor, error) {
	data := make([]byte, 0, 8*len(values))
	for _, v := range values {
		data = binary.LittleEndian.AppendUint64(data, uint64(v))
	}
	return Tensor{Shape: shape, DType: "i64", File: path}, os.WriteFile(path, data, 0o600)
}

// Floats reads a tensor's file.
func (t Tensor) Floats() ([]float32, error) {
	data, err := t.read("f32", 4)
	if err != nil {
		return nil, err
	}
	out := make([]float32, len(data)/4)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
	}
	return out, nil
}

// IDs reads the file of a tensor of ids.
func (t Tensor) IDs() ([]int32, error) {
	data, err := t.read("i64", 8)
	if err != nil {
		return nil, err
	}
	out := make([]int32, len(data)/8)
	for i := range out {
		v := int64(binary.LittleEndian.Uint64(data[8*i:]))
		if v < 0 || v > math.MaxInt32 {
			return nil, fmt.Errorf("%s: id %d", t.File, v)
		}
		out[i] = int32(v)
	}
	return out, nil
}

// read reads the file and checks its size against the shape.
func (t Tensor) read(dtype string, size int) ([]byte, error) {
	if t.DType != "" && t.DType != dtype {
		return nil, fmt.Errorf("%s: values of type %q, want %q", t.File, t.DType, dtype)
	}
	data, err := os.ReadFile(t.File)
	if err != nil {
		return nil, err
	}
	want := size
	for _, n := range t.Shape {
		want *= n
	}
	if len(data) != want {
		return nil, fmt.Errorf("%s: %d bytes, want %d of shape %v", t.File, len(data), want, t.Shape)
	}
	return data, nil
}
