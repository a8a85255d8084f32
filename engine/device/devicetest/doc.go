// Package devicetest is one conformance suite for every device.Device, and the definition of
// every op that devices are compared with.
//
// The package may import engine/tensor and engine/device.
package devicetest
