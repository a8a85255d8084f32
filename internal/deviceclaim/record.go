package deviceclaim

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"time"

	"github.com/triptych-serving/triptych/stage"
)

// record is what a process tells the others.
type record struct {
	owner  owner // the orchestrator it works for; zero is nobody known
	bytes  int64 // reserved
	budget int64 // of the whole device, as the process was told; 0 is no limit
	want   want
}

// owner is a digest of an orchestrator's id.
type owner [16]byte

func ownerOf(id string) (o owner) {
	if id == "" {
		return o
	}
	sum := sha256.Sum256([]byte(id))
	copy(o[:], sum[:])
	return o
}

// want is since when the orchestrator's oldest request is there, and what its first waiting one lacks. It counts until a moment that whoever wants must keep
// putting off, so that the wish of an orchestrator that died does not outlive it.
type want struct {
	bytes        int64
	since, until int64 // Unix nanoseconds
}

// at is the want if it counts now.
func (w want) at(now time.Time) (stage.Want, bool) {
	return stage.Want{Bytes: w.bytes, Since: time.Unix(0, w.since)}, w.since > 0 && now.UnixNano() < w.until
}

// A record's file is its magic, owner, the five numbers (little-endian, none negative) and the CRC-32C of all that.
const (
	magic       = "TRIPLES1"
	recordBytes = len(magic) + len(owner{}) + 5*8 + crc32.Size
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (r record) encode() []byte {
	out := append([]byte(magic), r.owner[:]...)
	for _, n := range []int64{r.bytes, r.budget, r.want.bytes, r.want.since, r.want.until} {
		out = binary.LittleEndian.AppendUint64(out, uint64(n))
	}
	return binary.LittleEndian.AppendUint32(out, crc32.Checksum(out, castagnoli))
}

// decode is the inverse of encode; the error says what is wrong with the data.
func decode(data []byte) (r record, err error) {
	if len(data) != recordBytes {
		return r, fmt.Errorf("expected %d bytes, got %d", recordBytes, len(data))
	}
	if !bytes.HasPrefix(data, []byte(magic)) {
		return r, fmt.Errorf("expected %q at the start, got %q", magic, data[:len(magic)])
	}
	body, sum := data[:recordBytes-crc32.Size], binary.LittleEndian.Uint32(data[recordBytes-crc32.Size:])
	if got := crc32.Checksum(body, castagnoli); got != sum {
		return r, fmt.Errorf("expected checksum %08x, got %08x", sum, got)
	}
	body = body[len(magic):]
	body = body[copy(r.owner[:], body):]
	for _, n := range []*int64{&r.bytes, &r.budget, &r.want.bytes, &r.want.since, &r.want.until} {
		v := binary.LittleEndian.Uint64(body)
		if v > math.MaxInt64 {
			return record{}, fmt.Errorf("expected numbers up to %d, got %d", int64(math.MaxInt64), v)
		}
		*n, body = int64(v), body[8:]
	}
	return r, nil
}

// add is a sum that stops at the largest number.
func add(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}
