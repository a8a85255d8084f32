// Package toymodel writes models of the toy family, with the same random weights every time.
//
// The package may import the toy, and what a family may.
package toymodel

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"github.com/triptych-serving/triptych/engine/model/modeldir"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/families/testdata/toy"
)

// Write makes a model in a folder, which need not be there: some 20 kB with a width of 16, more with another. Weights come from
// the folders' names and the seeds, by folder; what has the same in two models is equal.
func Write(dir string, width int, seeds map[string]int) error {
	index := map[string]any{"_class_name": toy.Family().Class, "_diffusers_version": "0.35.0"}
	for folder, class := range map[string]string{
		"text_encoder": "ToyTextEncoder", "text_encoder_2": "ToyTextEncoder", "denoiser": "ToyDenoiser", "control": "ToyControl", "decoder": "ToyDecoder",
	} {
		index[folder] = []string{"toy", class}
		if err := writeJSON(filepath.Join(dir, folder, "config.json"), map[string]any{"hidden_size": width, "max_tokens": 8}); err != nil {
			return err
		}
	}
	if err := writeJSON(filepath.Join(dir, modeldir.IndexFile), index); err != nil {
		return err
	}
	m, err := family.Open([]family.Family{toy.Family()}, dir, "")
	if err != nil {
		return err
	}
	for _, c := range m.Components {
		net, err := c.Open(modeldir.Options{Outline: true})
		if err != nil {
			return err
		}
		name := "diffusion_pytorch_model.safetensors"
		if strings.HasPrefix(c.Folder, "text_encoder") {
			name = "model.safetensors"
		}
		data, err := weights(net.Files(), fmt.Sprintf("%s %d", c.Folder, seeds[c.Folder]))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, c.Folder, name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// weights is a safetensors file of all tensors of a network: normal values that keep the size of what goes through.
func weights(net *modeldir.Network, seed string) ([]byte, error) {
	header := map[string]any{}
	var data []byte
	for _, t := range net.Tensors() {
		h := fnv.New64a()
		fmt.Fprintf(h, "%s %s", seed, t.Name)
		random := rand.New(rand.NewPCG(h.Sum64(), 1)) //nolint:gosec // weights are no secret and must come out the same again
		n, _ := t.Shape.Elems()
		at, deviation := len(data), 1/math.Sqrt(float64(t.Shape[len(t.Shape)-1]))
		for range n {
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(float32(deviation*random.NormFloat64())))
		}
		header[t.Name] = map[string]any{"dtype": "F32", "shape": t.Shape, "data_offsets": []int{at, len(data)}}
	}
	text, err := json.Marshal(header)
	if err != nil {
		return nil, err
	}
	for len(text)%8 != 0 {
		text = append(text, ' ')
	}
	return append(append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...), data...), nil
}

func writeJSON(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o600)
}
