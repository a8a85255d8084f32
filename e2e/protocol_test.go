//go:build linux

package e2e

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	stagev1alpha1 "github.com/triptych-serving/triptych/proto/triptych/stage/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
)

// oldDenoiser is a denoiser of the first stage protocol.
type oldDenoiser struct {
	stagev1alpha1.UnimplementedStageServiceServer
}

func (oldDenoiser) GetStageInfo(context.Context, *stagev1alpha1.GetStageInfoRequest) (*stagev1alpha1.GetStageInfoResponse, error) {
	return &stagev1alpha1.GetStageInfoResponse{Protocol: 1, Kind: stagev1alpha1.StageKind_STAGE_KIND_DENOISER, Version: "old"}, nil
}

// TestOtherProtocol: an orchestrator gives a service of another stage protocol no work, and whoever waits for it is told both
// numbers; a service tells them to an orchestrator of another protocol.
func TestOtherProtocol(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	old := grpc.NewServer()
	stagev1alpha1.RegisterStageServiceServer(old, oldDenoiser{})
	go func() { _ = old.Serve(lis) }() // until it is stopped
	t.Cleanup(old.Stop)
	service := map[string]string{"denoiser": lis.Addr().String()}
	for _, kind := range []string{"encoder", "decoder"} {
		service[kind] = startServer(t, command(t, kind, "--listen", "127.0.0.1:0", "--log-level", "info")).conn.Target()
	}
	s := startServer(t, command(t, "orchestrator", "--listen", "127.0.0.1:0", "--log-level", "info", "--patience", "5s",
		"--encoder", service["encoder"], "--denoiser", service["denoiser"], "--decoder", service["decoder"]))
	got := runCommand(t, "generate", "fox", "--server", s.conn.Target(), "-o", filepath.Join(t.TempDir(), "out.png"))
	const says = "the denoiser speaks stage protocol 1, expected 2"
	if got.code != 1 || !strings.Contains(got.stderr, "waiting: denoiser "+service["denoiser"]+": "+says) || strings.Count(got.stderr, says) != 2 {
		t.Errorf("exit code %d, want 1 with %q of the one that waits and of the error: %s", got.code, says, got.stderr)
	}

	conn, err := grpc.NewClient(service["encoder"], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = stagev1alpha1.NewStageServiceClient(conn).GetStageInfo(t.Context(), &stagev1alpha1.GetStageInfoRequest{Protocols: []uint32{1}})
	if err = stagerpc.FromStatus(err, 0); stage.ReasonOf(err) != stage.StageProtocolUnsupported || !strings.Contains(err.Error(), "protocol 2, offered were [1]") {
		t.Errorf("asked in protocol 1: %v", err)
	}
}
