package orchestrator

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/triptych-serving/triptych/internal/rpcserver"
	"github.com/triptych-serving/triptych/orchestrator/fleet/fleettest"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

// TestNameOverTLS: services behind a name are found by DNS, and have to have a certificate for the name and not for their address.
func TestNameOverTLS(t *testing.T) {
	files := certificate(t, "stage.test")
	creds, err := credentials.NewServerTLSFromFile(files.CertFile, files.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	dns := &fleettest.DNS{}
	dns.Set("stage.test", "127.0.0.1")
	dns.Set("wrong.test", "127.0.0.1")
	server := dns.Serve(t)
	serve := func(kind stage.Kind, host string) string {
		lis := listen(t)
		s := grpc.NewServer(append(stagerpc.ServerOptions(), grpc.Creds(creds))...)
		stagerpc.Register(s, kind, stagetest.New(kind, &stagetest.Script{}), slog.New(slog.DiscardHandler))
		served := make(chan error, 1)
		go func() { served <- s.Serve(lis) }()
		t.Cleanup(func() {
			s.Stop()
			if err := <-served; err != nil {
				t.Error(err)
			}
		})
		_, port, err := net.SplitHostPort(lis.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return "dns://" + server + "/" + host + ":" + port
	}
	o := options()
	o.StageTLS = rpcserver.ClientTLS{CAFile: files.CertFile}
	o.Stages = map[stage.Kind][]string{
		stage.KindEncoder: {serve(stage.KindEncoder, "stage.test.")}, stage.KindDenoiser: {serve(stage.KindDenoiser, "stage.test")},
		stage.KindDecoder: {serve(stage.KindDecoder, "stage.test"), serve(stage.KindDecoder, "wrong.test")},
	}
	models := triptychv1alpha1.NewModelServiceClient(serveOptions(t, o))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		res, err := models.ListModels(ctx, &triptychv1alpha1.ListModelsRequest{}, grpc.WaitForReady(true))
		if err != nil {
			t.Fatal(err)
		}
		well, wrong := 0, false
		for _, s := range res.GetServices() {
			if !strings.HasPrefix(s.GetAddress(), "127.0.0.1:") {
				continue
			}
			if s.GetProblem() == "" {
				well++
			}
			wrong = wrong || strings.Contains(s.GetProblem(), "its certificate is for another name") && strings.Contains(s.GetProblem(), "wrong.test")
		}
		if well == 3 && wrong {
			return
		}
	}
}
