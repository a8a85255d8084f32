//go:build !race

package residency

const raced = false
