package main

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

// adapterFlags name what a model is used with; they stand for options and inputs of the model.
type adapterFlags struct {
	loras, controlNets, ipAdapters []string
	controlImages                  []string // files, of each ControlNet
	imagePrompt                    string   // a file
}

func (f *adapterFlags) add(flags *pflag.FlagSet) {
	f.addNames(flags)
	flags.StringArrayVar(&f.controlImages, "control-image", nil, "picture for the ControlNet, the first for the first; may be repeated")
	flags.StringVar(&f.imagePrompt, "image-prompt", "", "picture that --ip-adapter looks at")
}

// addNames adds the flags that name adapters, and not those of their files.
func (f *adapterFlags) addNames(flags *pflag.FlagSet) {
	flags.StringArrayVar(&f.loras, "lora", nil, "LoRA, NAME or NAME:SCALE, or NAME:SCALE:SCALE of text encoders and of the U-Net; may be repeated, and written <lora:NAME:SCALE> in the prompt")
	flags.StringArrayVar(&f.controlNets, "controlnet", nil, "ControlNet, NAME or NAME:SCALE or NAME:SCALE:START:END, the parts of the steps in which it works; may be repeated")
	flags.StringArrayVar(&f.ipAdapters, "ip-adapter", nil, "IP-Adapter, NAME or NAME:SCALE, which takes a picture")
}

// options and inputs are the flags as --option and --input have them.
func (f *adapterFlags) options() (out []string) {
	for _, o := range []struct {
		name  string
		named []string
	}{{"loras", f.loras}, {"controlnets", f.controlNets}, {"ip_adapter", f.ipAdapters}} {
		if len(o.named) > 0 {
			out = append(out, o.name+"="+strings.Join(o.named, ","))
		}
	}
	return out
}

func (f *adapterFlags) inputs() (out []string) {
	for i, path := range f.controlImages {
		name := "control_image"
		if i > 0 {
			name += fmt.Sprintf("_%d", i+1)
		}
		out = append(out, name+"="+path)
	}
	if f.imagePrompt != "" {
		out = append(out, "image_prompt="+f.imagePrompt)
	}
	return out
}
