// Package procusage tells whether a process has run: what it has used is another than before. A process that is stopped or
// frozen uses nothing, one that has to share the processors with a hundred others something within a second.
package procusage
