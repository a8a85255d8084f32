package main

import (
	"slices"
	"testing"

	"github.com/spf13/pflag"
)

func TestAdapterFlags(t *testing.T) {
	var f adapterFlags
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	f.add(flags)
	if err := flags.Parse([]string{
		"--lora", "style:0.8", "--lora", "detail", "--controlnet", "canny:0.8:0:0.6", "--controlnet", "depth", "--control-image", "a.png", "--control-image", "b.png",
		"--ip-adapter", "plus:0.5", "--image-prompt", "c.png",
	}); err != nil {
		t.Fatal(err)
	}
	if got, want := f.options(), []string{"loras=style:0.8,detail", "controlnets=canny:0.8:0:0.6,depth", "ip_adapter=plus:0.5"}; !slices.Equal(got, want) {
		t.Errorf("options %q, want %q", got, want)
	}
	if got, want := f.inputs(), []string{"control_image=a.png", "control_image_2=b.png", "image_prompt=c.png"}; !slices.Equal(got, want) {
		t.Errorf("inputs %q, want %q", got, want)
	}
	if f = (adapterFlags{}); len(f.options())+len(f.inputs()) > 0 {
		t.Error("without flags there are options")
	}
}
