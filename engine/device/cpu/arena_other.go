//go:build !linux

package cpu

// AdviseHuge does nothing: pages are what the system makes them.
func AdviseHuge([]byte) {}
