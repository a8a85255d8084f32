//go:build !linux

package stageplugin

// usage is not known here.
func usage(int) string { return "" }
