//go:build linux

package suite

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
)

// seeds are those of pictures that callers ask for.
const seeds = 6

// patience bounds a picture that waits for a stage.
const patience = 3 * time.Minute

// A picture is what is asked for.
type picture struct {
	prompt string // that of most pictures if empty
	seed   uint64
	steps  int32 // the model's own number if 0
}

// words are its prompt.
func (p picture) words() string { return cmp.Or(p.prompt, "cool face on a pink background") }

// long is a picture that denoises for seconds.
var long = picture{seed: 7, steps: 120}

// reference is the file that `triptych generate` makes of the picture on this machine, made once.
func (s *Suite) reference(ctx context.Context, p picture) ([]byte, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if file, ok := s.references[p]; ok {
		return file, nil
	}
	path, claims := filepath.Join(s.Dir, "reference.png"), filepath.Join(s.Dir, "reference-claims")
	if err := os.MkdirAll(claims, 0o700); err != nil {
		return nil, err
	}
	args := []string{"generate", p.words(), "--seed=" + strconv.FormatUint(p.seed, 10), "--output=" + path, "--device-claims=" + claims}
	if p.steps > 0 {
		args = append(args, "--steps="+strconv.Itoa(int(p.steps)))
	}
	cmd := exec.CommandContext(ctx, s.Triptych, args...)
	cmd.Dir = s.Root
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%v: %w: %s", cmd.Args, err, out)
	}
	file, err := os.ReadFile(path)
	if err == nil {
		s.references[p] = file
	}
	return file, err
}

// address is that of a Service of the release.
func (t *T) address(service string, port int) string {
	return fmt.Sprintf("%s.%s.svc.cluster.local:%d", service, t.Namespace, port)
}

// dial connects to the release's public API, by its Service. Without credentials it is plaintext.
func (t *T) dial(secure credentials.TransportCredentials) (*grpc.ClientConn, error) {
	if secure == nil {
		secure = insecure.NewCredentials()
	}
	return grpc.NewClient("dns:///"+t.address(releaseName, 7420), grpc.WithTransportCredentials(secure))
}

// generate asks for a picture and returns its file. Each event of the stream goes to see first, if
// there is one.
func generate(ctx context.Context, conn *grpc.ClientConn, p picture, see func(*triptychv1alpha1.GenerateResponse)) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	spec := &triptychv1alpha1.GenerationSpec{Prompt: p.words(), Seed: &p.seed, Output: &triptychv1alpha1.OutputOptions{Format: "png"}}
	if p.steps > 0 {
		spec.Steps = &p.steps
	}
	stream, err := triptychv1alpha1.NewGenerationServiceClient(conn).Generate(ctx, &triptychv1alpha1.GenerateRequest{Spec: spec})
	if err != nil {
		return nil, err
	}
	var file []byte
	for completed := false; ; {
		event, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && completed:
			return file, nil
		case err != nil:
			return nil, err
		}
		if see != nil {
			see(event)
		}
		if ready := event.GetImageReady(); ready != nil {
			file = append(file, ready.GetData()...)
		}
		file = append(file, event.GetImageChunk().GetData()...)
		completed = completed || event.GetCompleted() != nil
	}
}

// same asks for a picture and compares its file with the reference.
func (t *T) same(ctx context.Context, conn *grpc.ClientConn, p picture, see func(*triptychv1alpha1.GenerateResponse)) error {
	want, err := t.reference(ctx, p)
	if err != nil {
		return err
	}
	got, err := generate(ctx, conn, p, see)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("the picture of seed %d has %d bytes that differ from the %d of triptych generate", p.seed, len(got), len(want))
	}
	return nil
}

// one asks for one picture through the Service and compares it.
func (t *T) one(ctx context.Context, p picture) error {
	conn, err := t.dial(nil)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	return t.same(ctx, conn, p, nil)
}
