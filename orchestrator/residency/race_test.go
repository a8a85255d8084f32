//go:build race

package residency

const raced = true
