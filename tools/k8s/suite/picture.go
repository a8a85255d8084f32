package suite

import (
	"bytes"
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

// prompt and seeds are of all pictures that are asked for.
const (
	prompt = "cool face on a pink background"
	seeds  = 6
)

// patience bounds a picture that waits for a stage.
const patience = 2 * time.Minute

// references are the pictures that `triptych generate` makes on this machine, by seed.
type references map[uint64][]byte

// reference returns the pictures that the cluster's are compared with, made once.
func (s *Suite) reference(ctx context.Context) (references, error) {
	if s.references != nil {
		return s.references, nil
	}
	made := references{}
	for seed := range uint64(seeds) {
		file := filepath.Join(s.Dir, "reference.png")
		cmd := exec.CommandContext(ctx, s.Triptych, "generate", prompt, "--seed="+strconv.FormatUint(seed, 10), "--output="+file,
			"--device-claims="+filepath.Join(s.Dir, "reference-claims"))
		cmd.Dir = s.Root
		if err := os.MkdirAll(filepath.Join(s.Dir, "reference-claims"), 0o700); err != nil {
			return nil, err
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%v: %w: %s", cmd.Args, err, out)
		}
		picture, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		made[seed] = picture
	}
	s.references = made
	return made, nil
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

// generate asks for the picture of a seed and returns it. Each event of the stream goes to see first,
// if there is one.
func generate(ctx context.Context, conn *grpc.ClientConn, seed uint64, see func(*triptychv1alpha1.GenerateResponse)) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	stream, err := triptychv1alpha1.NewGenerationServiceClient(conn).Generate(ctx, &triptychv1alpha1.GenerateRequest{
		Spec: &triptychv1alpha1.GenerationSpec{
			Prompt: prompt, Seed: &seed, Output: &triptychv1alpha1.OutputOptions{Format: "png"},
		},
	}, grpc.WaitForReady(false))
	if err != nil {
		return nil, err
	}
	var picture []byte
	for completed := false; ; {
		event, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && completed:
			return picture, nil
		case err != nil:
			return nil, err
		}
		if see != nil {
			see(event)
		}
		if ready := event.GetImageReady(); ready != nil {
			picture = append(picture, ready.GetData()...)
		}
		picture = append(picture, event.GetImageChunk().GetData()...)
		completed = completed || event.GetCompleted() != nil
	}
}

// samePicture asks for the picture of a seed and compares it with the reference.
func (t *T) samePicture(ctx context.Context, conn *grpc.ClientConn, seed uint64, see func(*triptychv1alpha1.GenerateResponse)) error {
	want, err := t.reference(ctx)
	if err != nil {
		return err
	}
	got, err := generate(ctx, conn, seed, see)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want[seed]) {
		return fmt.Errorf("the picture of seed %d has %d bytes that differ from the %d of triptych generate", seed, len(got), len(want[seed]))
	}
	return nil
}
