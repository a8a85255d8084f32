// Package rrdb is the network of ESRGAN and Real-ESRGAN, residual in residual dense blocks and upsamplings (Wang et al. 2018,
// arXiv 1809.00219; Wang et al. 2021, arXiv 2107.10833), under the three namings that its files have.
//
// The package may import engine/device and engine/nn.
package rrdb

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/triptych-serving/triptych/engine/nn"
)

// ImageChannels of what goes in and comes out: RGB.
const ImageChannels = 3

// Config is what names and shapes of a file's tensors tell.
type Config struct {
	Features  int // channels of the trunk
	Growth    int // channels that each convolution of a dense block adds
	Blocks    int
	Upsamples int // each doubles the sides
	Unshuffle int // squares of so many pixels are the channels of one: 1, 2 or 4
	Naming    Naming
}

// Scale is how much larger sides become.
func (c Config) Scale() int { return 1 << c.Upsamples / c.Unshuffle }

// Naming is how tensors are called.
type Naming uint8

// The namings.
const (
	OldNames    Naming = iota + 1 // places in nested sequences: model.0, model.1.sub.0.RDB1.conv1.0
	NewNames                      // conv_first, body.0.rdb1.conv1: Real-ESRGAN and BasicSR
	RealSRNames                   // conv_first, RRDB_trunk.0.RDB1.conv1: RealSR and BSRGAN
)

// first is the name of the first convolution.
func (n Naming) first() string {
	if n == OldNames {
		return "model.0"
	}
	return "conv_first"
}

// dense is the name of convolution k of dense block r of a block; k and r count from 1.
func (n Naming) dense(block, r, k int) string {
	switch n {
	case OldNames:
		return fmt.Sprintf("model.1.sub.%d.RDB%d.conv%d.0", block, r, k)
	case RealSRNames:
		return fmt.Sprintf("RRDB_trunk.%d.RDB%d.conv%d", block, r, k)
	}
	return fmt.Sprintf("body.%d.rdb%d.conv%d", block, r, k)
}

// trunk is the name of the convolution behind the blocks.
func (c Config) trunk() string {
	switch c.Naming {
	case OldNames:
		return fmt.Sprintf("model.1.sub.%d", c.Blocks)
	case RealSRNames:
		return "trunk_conv"
	}
	return "conv_body"
}

// up is the name of the i-th upsampling's convolution, from 1.
func (n Naming) up(i int) string {
	switch n {
	case OldNames:
		return "model." + strconv.Itoa(3*i)
	case RealSRNames:
		return "upconv" + strconv.Itoa(i)
	}
	return "conv_up" + strconv.Itoa(i)
}

// last are the names of the last two convolutions.
func (c Config) last() (hr, last string) {
	switch c.Naming {
	case OldNames:
		return fmt.Sprintf("model.%d", 3*c.Upsamples+2), fmt.Sprintf("model.%d", 3*c.Upsamples+4)
	case RealSRNames:
		return "HRconv", "conv_last"
	}
	return "conv_hr", "conv_last"
}

// Of finds the config of a file whose tensors are called so below a prefix; ok is whether it is of this network at all. Whether all
// tensors are there is not looked at. The error tells a number that is out of bounds.
func Of(src nn.Source, prefix string) (c Config, ok bool, err error) {
	shape := func(name string) []int {
		_, s, _ := src.Info(prefix + name + ".weight")
		if len(s) != 4 {
			return nil
		}
		return s
	}
	for _, naming := range []Naming{OldNames, NewNames, RealSRNames} {
		if shape(naming.dense(0, 1, 1)) != nil && shape(naming.first()) != nil {
			c.Naming, ok = naming, true
		}
	}
	if !ok {
		return c, false, nil
	}
	first := shape(c.Naming.first())
	c.Features, c.Growth = first[0], shape(c.Naming.dense(0, 1, 1))[0]
	highest := 0 // place of a top level convolution in the old naming
	for _, name := range src.Names() {
		name, below := strings.CutPrefix(name, prefix)
		if !below {
			continue
		}
		if i, rest, found := number(name, c.Naming.block()); found && strings.HasPrefix(strings.ToLower(rest), ".rdb") {
			c.Blocks = max(c.Blocks, i+1)
		}
		if i, rest, found := number(name, "model."); found && rest == ".weight" {
			highest = max(highest, i)
		}
		if i, rest, found := number(name, strings.TrimSuffix(c.Naming.up(1), "1")); found && rest == ".weight" && c.Naming != OldNames {
			c.Upsamples = max(c.Upsamples, i)
		}
	}
	if c.Naming == OldNames {
		c.Upsamples = (highest - 4) / 3
		if highest < 4 || (highest-4)%3 != 0 {
			return c, true, fmt.Errorf("its last convolution is model.%d; expected model.4, model.7, model.10 or model.13, with an upsampling by 2 for each three places", highest)
		}
	}
	for c.Unshuffle = 1; c.Unshuffle < maxUnshuffle && ImageChannels*c.Unshuffle*c.Unshuffle < first[1]; c.Unshuffle *= 2 {
	}
	if ImageChannels*c.Unshuffle*c.Unshuffle != first[1] {
		return c, true, fmt.Errorf("its first convolution has %d input channels; expected 3, or 12 or 48 of an image whose pixels are taken together by squares", first[1])
	}
	if c.Features > maxChannels || c.Growth > maxChannels || c.Blocks > maxBlocks || c.Upsamples > maxUpsamples || c.Unshuffle > 1<<c.Upsamples {
		return c, true, fmt.Errorf("it has %d features, growth %d, %d blocks, %d upsamplings and squares of %d; expected at most %d, %d, %d and %d, and a scale of 1 or more",
			c.Features, c.Growth, c.Blocks, c.Upsamples, c.Unshuffle, maxChannels, maxChannels, maxBlocks, maxUpsamples)
	}
	return c, true, nil
}

// Bounds of a config.
const (
	maxChannels  = 1024
	maxBlocks    = 256
	maxUpsamples = 4
	maxUnshuffle = 4
)

// block is what the names of blocks begin with.
func (n Naming) block() string {
	name, _, _ := strings.Cut(n.dense(0, 1, 1), "0.")
	return name
}

// number reads the number behind a prefix of a name, and what follows.
func number(name, prefix string) (n int, rest string, ok bool) {
	digits, ok := strings.CutPrefix(name, prefix)
	end := len(digits) - len(strings.TrimLeft(digits, "0123456789"))
	n, err := strconv.Atoi(digits[:end])
	return n, digits[end:], ok && err == nil && n < 1<<16
}
