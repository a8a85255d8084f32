package networks

import (
	"os"

	"github.com/triptych-serving/triptych/bench/peer"
)

// side does the work: our child process, a peer's, or the services.
type side interface {
	// do works once and tells the seconds. hello gathers what an engine tells of itself only then.
	do(r peer.Request) (seconds float64, out result, hello peer.Hello, err error)
	// peak is the most memory its processes ever had in RAM together, and what of it its device gave out where it has a ledger,
	// in bytes.
	peak() (rss, ledger int64, err error)
	close()
}

// child is a side behind the protocol of bench/peer.
type child struct{ *peer.Child }

func (c child) do(r peer.Request) (float64, result, peer.Hello, error) {
	reply, err := c.Do(r)
	hello := peer.Hello{LoadSeconds: reply.LoadSeconds, Notes: reply.Notes}
	if err != nil || reply.Output == nil {
		return reply.Seconds, result{}, hello, err
	}
	defer os.Remove(reply.Output.File) //nolint:errcheck // what stays is in a folder that is removed
	if r.Op == "image" {
		file, err := os.ReadFile(reply.Output.File)
		return reply.Seconds, result{png: file}, hello, err
	}
	values, err := reply.Output.Floats()
	return reply.Seconds, result{values: values}, hello, err
}

func (c child) peak() (rss, ledger int64, err error) {
	reply, err := c.Do(peer.Request{Op: "rss"})
	return reply.PeakRSS, reply.PeakLedger, err
}

func (c child) close() { c.Close() }
