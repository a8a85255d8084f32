package stagerpc

import (
	"errors"
	"fmt"
	"io"

	"github.com/triptych-serving/triptych/stage"
)

// imageFile is the name of an image file's bytes in errors.
const imageFile = "image"

// checkFileSize bounds what is announced.
func checkFileSize(size int64) error {
	if size < 1 || size > MaxImageBytes {
		return stage.Invalid(stage.InvalidField, "data", fmt.Sprintf("%d bytes", size), fmt.Sprintf("1 to %d bytes", MaxImageBytes))
	}
	return nil
}

// sendFile sends data in order.
func sendFile(data []byte, send func([]byte) error) error {
	for len(data) > 0 {
		n := min(len(data), ChunkBytes)
		if err := send(data[:n]); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

// receiveFile puts a file of an announced size together. TensorInvalid: to the wire a file is one
// more run of bytes.
func receiveFile[M any](in inbox[M], size int64, data func(*M) []byte) ([]byte, error) {
	if checkFileSize(size) != nil {
		return nil, invalid(imageFile, 0, fmt.Sprintf("1 to %d bytes", MaxImageBytes), size)
	}
	var file []byte
	for int64(len(file)) < size {
		have := int64(len(file))
		m, err := in.recv()
		if errors.Is(err, io.EOF) {
			return nil, invalid(imageFile, have, fmt.Sprintf("%d bytes", size), "the end of the stream")
		}
		if err != nil {
			return nil, err
		}
		part := data(m)
		if n := int64(len(part)); n == 0 || n > MaxChunkBytes || n > size-have {
			return nil, invalid(imageFile, have, fmt.Sprintf("1 to %d bytes of data", min(MaxChunkBytes, size-have)), fmt.Sprintf("%d in %s", n, payload(m)))
		}
		file = appendBounded(file, part, size)
	}
	return file, nil
}
