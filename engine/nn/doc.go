// Package nn holds the layers that diffusion networks are made of, one file each. A layer is
// declared once, on a Scope, which looks its parameters up in a model file by name and lists them
// in a device.Manifest; its Forward then records ops on a device.Tape for given shapes. Nothing is
// loaded or computed here.
//
// Names and semantics follow diffusers and transformers, whose files are read. Activations are
// channels last.
//
// The package may import engine/device and engine/tensor only.
package nn
