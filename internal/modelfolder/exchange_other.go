//go:build !linux

package modelfolder

// exchange puts a folder in the place of another, which has its place then.
func exchange(from, to string) error { return exchangeByRename(from, to) }
