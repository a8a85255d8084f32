// Package families lists the families of models. A family is a folder here and a line below.
//
// The folders below import stage and the engine; nobody imports a family but this list.
package families

import (
	"slices"

	"github.com/triptych-serving/triptych/families/beside"
	"github.com/triptych-serving/triptych/families/controlnet"
	"github.com/triptych-serving/triptych/families/family"
	"github.com/triptych-serving/triptych/families/flux"
	"github.com/triptych-serving/triptych/families/ipadapter"
	"github.com/triptych-serving/triptych/families/lora"
	"github.com/triptych-serving/triptych/families/sd"
	"github.com/triptych-serving/triptych/families/sdxl"
	"github.com/triptych-serving/triptych/families/taesd"
	"github.com/triptych-serving/triptych/families/upscaler"
)

// All are the families, those that can be run first.
func All() []family.Family {
	return slices.Concat(sd.Families(), sdxl.Families(), beside.Families(), []family.Family{
		flux.Family(),
		controlnet.Family(),
		ipadapter.Family(),
		lora.Family(),
		upscaler.Family(),
		taesd.Family(),
	})
}
