//go:build !linux

package procusage

// Of is not known here.
func Of(int) string { return "" }
