//go:build !linux

package cpu

// adviseHuge does nothing: pages are what the system makes them.
func adviseHuge([]byte) {}
