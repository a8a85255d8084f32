package stagerpc_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	publicpb "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
	"github.com/triptych-serving/triptych/stage/stagetest"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

var update = flag.Bool("update", false, "write testdata/statuses.txt anew")

// wireReasons is the proto enum in order, without the one that says nothing.
func wireReasons() []string {
	var names []string
	values := publicpb.ErrorReason(0).Descriptor().Values()
	for i := range values.Len() {
		if v := values.Get(i); v.Number() != 0 {
			names = append(names, strings.TrimPrefix(string(v.Name()), "ERROR_REASON_"))
		}
	}
	return names
}

// TestReasonsAgree compares the constants of package stage, read from their source, with the enum.
func TestReasonsAgree(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../errors.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var declared []string
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		if typ, ok := spec.Type.(*ast.Ident); ok && typ.Name == "Reason" {
			value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			declared = append(declared, value)
		}
		return true
	})
	if diff := cmp.Diff(wireReasons(), declared); diff != "" {
		t.Errorf("the enum ErrorReason and the constants of package stage differ:\n%s", diff)
	}
}

// TestStatusGolden pins each reason's bytes on the wire, and reads them back.
// Written by: go test ./stage/stagerpc -run TestStatusGolden -update
func TestStatusGolden(t *testing.T) {
	const path = "testdata/statuses.txt"
	var made strings.Builder
	made.WriteString("# reason, code, details, google.rpc.Status; by go test ./stage/stagerpc -run TestStatusGolden -update\n")
	wanted := map[string]*stage.Error{}
	for _, name := range wireReasons() {
		e := &stage.Error{Reason: stage.Reason(name), Message: "message of " + name, Metadata: map[string]string{"stage": "denoiser"}}
		switch {
		case strings.HasPrefix(name, "ENGINE"), name == "NOT_FINITE":
			e.Metadata = map[string]string{"incident_id": "golden"}
		case strings.HasSuffix(name, "_FIELD"), strings.HasSuffix(name, "UNSUPPORTED"):
			e.Metadata = map[string]string{"field": "steps"}
		}
		wanted[name] = e
		st := status.Convert(stagerpc.ToStatus(t.Context(), quiet(), e))
		var kinds []string
		for i, d := range st.Proto().GetDetails() {
			kinds = append(kinds, strings.TrimPrefix(d.GetTypeUrl(), "type.googleapis.com/google.rpc."))
			if retry, ok := st.Details()[i].(*errdetails.RetryInfo); ok {
				e.RetryAfter = retry.GetRetryDelay().AsDuration()
			}
		}
		wire, err := proto.MarshalOptions{Deterministic: true}.Marshal(st.Proto())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&made, "%s %v %s %x\n", name, st.Code(), strings.Join(kinds, "+"), wire)
	}
	if *update {
		if err := os.WriteFile(path, []byte(made.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(golden), made.String()); diff != "" {
		t.Errorf("statuses differ from %s:\n%s", path, diff)
	}
	for line := range strings.Lines(string(golden)) {
		words := strings.Fields(line)
		if words[0] == "#" {
			continue
		}
		wire, err := hex.DecodeString(words[3])
		if err != nil {
			t.Fatal(err)
		}
		var p spb.Status
		if err := proto.Unmarshal(wire, &p); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(error(wanted[words[0]]), stagerpc.FromStatus(status.ErrorProto(&p), stage.KindDenoiser)); diff != "" {
			t.Errorf("%s does not survive the wire:\n%s", words[0], diff)
		}
	}
}

// TestRetry: whatever passes by itself says when to try again, through every hop; what does not, does not.
func TestRetry(t *testing.T) {
	retryable := []stage.Reason{
		stage.QueueFull, stage.DiskFull, stage.StageUnreachable, stage.StageDraining, stage.StageEvicted, stage.RuntimeDied, stage.StageOwned, stage.DeviceBusy,
		stage.ModelChanged, stage.ShuttingDown,
	}
	delay := func(e *stage.Error) time.Duration {
		back := stagerpc.FromStatus(stagerpc.ToStatus(t.Context(), quiet(), e), stage.KindDecoder)
		var known *stage.Error
		if !errors.As(back, &known) {
			t.Fatalf("%v came back as %v", e, back)
		}
		return known.RetryAfter
	}
	for _, name := range wireReasons() {
		reason := stage.Reason(name)
		if got := delay(stage.Errorf(reason, "refused")); (got > 0) != slices.Contains(retryable, reason) {
			t.Errorf("%s: try again after %v", name, got)
		}
	}
	for _, reason := range retryable {
		if got := delay(&stage.Error{Reason: reason, RetryAfter: 7 * time.Second}); got != 7*time.Second {
			t.Errorf("%s with a delay of its own: try again after %v", reason, got)
		}
	}
}

func TestContextErrors(t *testing.T) {
	for code, err := range map[codes.Code]error{codes.Canceled: context.Canceled, codes.DeadlineExceeded: context.DeadlineExceeded} {
		got := stagerpc.ToStatus(t.Context(), quiet(), fmt.Errorf("step 3: %w", err))
		if status.Code(got) != code {
			t.Errorf("%v became %v", err, got)
		}
		if back := stagerpc.FromStatus(got, stage.KindEncoder); back != err {
			t.Errorf("%v came back as %v", err, back)
		}
	}
	if err := stagerpc.ToStatus(t.Context(), quiet(), nil); err != nil {
		t.Errorf("no error became %v", err)
	}
	if err := stagerpc.FromStatus(nil, stage.KindEncoder); err != nil {
		t.Errorf("no error came back as %v", err)
	}
}

// TestBareStatuses are those that grpc makes itself.
func TestBareStatuses(t *testing.T) {
	for code, reason := range map[codes.Code]stage.Reason{
		codes.Unavailable: stage.StageUnreachable, codes.Unimplemented: stage.StageProtocolUnsupported,
		codes.Internal: stage.EngineFault, codes.ResourceExhausted: stage.EngineFault, codes.Unknown: stage.EngineFault,
	} {
		bare := status.Error(code, "connection to /run/secret.sock refused")
		var e *stage.Error
		if !errors.As(stagerpc.FromStatus(bare, stage.KindDecoder), &e) || e.Reason != reason {
			t.Fatalf("%v became %v", code, e)
		}
		if strings.Contains(e.Message, "secret") || e.Metadata["stage"] != "decoder" || !errors.Is(e, bare) {
			t.Errorf("%v became %#v", code, e)
		}
	}
}

func TestForeignAndNewerReasons(t *testing.T) {
	with := func(domain, reason string) error {
		st, err := status.New(codes.Unavailable, "text").WithDetails(&errdetails.ErrorInfo{Reason: reason, Domain: domain, Metadata: map[string]string{"k": "v"}})
		if err != nil {
			t.Fatal(err)
		}
		return stagerpc.FromStatus(st.Err(), stage.KindEncoder)
	}
	if err := with("example.com", "MODEL_NOT_FOUND"); stage.ReasonOf(err) != stage.StageUnreachable {
		t.Errorf("a foreign domain's reason became %v", err)
	}
	var e *stage.Error
	if err := with(stagerpc.Domain, "FROM_THE_FUTURE"); !errors.As(err, &e) || e.Reason != stage.EngineFault || e.Metadata["reason"] != "FROM_THE_FUTURE" || e.Message != "text" {
		t.Errorf("a newer reason became %#v", e)
	}
	undeclared := &stage.Error{Reason: "TYPO", Message: "text"}
	if err := stagerpc.FromStatus(stagerpc.ToStatus(t.Context(), quiet(), undeclared), stage.KindEncoder); stage.ReasonOf(err) != stage.EngineFault {
		t.Errorf("an undeclared reason became %v", err)
	}
}

// TestCausesStay checks what callers see of errors that are not for them, and what the log gets.
func TestCausesStay(t *testing.T) {
	cause := errors.New("open /srv/models/secret: permission denied")
	for name, c := range map[string]struct {
		err      error
		incident bool
	}{
		"plain":    {cause, true},
		"fault":    {&stage.Error{Reason: stage.EngineFault, Message: "the device is gone", Cause: cause}, true},
		"expected": {&stage.Error{Reason: stage.ModelInvalid, Message: "a file is missing", Cause: cause}, false},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			st := stagerpc.ToStatus(t.Context(), slog.New(slog.NewTextHandler(&log, nil)), c.err)
			wire, err := proto.Marshal(status.Convert(st).Proto())
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(wire, []byte("secret")) {
				t.Errorf("the cause left: %s", wire)
			}
			if !strings.Contains(log.String(), "secret") {
				t.Errorf("the log lacks the cause: %s", log.String())
			}
			var e *stage.Error
			errors.As(stagerpc.FromStatus(st, stage.KindEncoder), &e)
			id := e.Metadata["incident_id"]
			if (id != "") != c.incident || !strings.Contains(log.String(), id) {
				t.Errorf("incident_id %q, log %s", id, log.String())
			}
		})
	}
}

// TestIncidentLoggedOnce follows an error over two hops.
func TestIncidentLoggedOnce(t *testing.T) {
	var inner, outer bytes.Buffer
	script := &stagetest.Script{}
	script.Fail(stagetest.OpEncode, 1, errors.New("segment 7 is missing"))
	hop := func(e stage.Stage, log *bytes.Buffer) stage.Stage {
		return stagerpc.New(stagetest.Connect(t, func(r grpc.ServiceRegistrar) {
			stagerpc.Register(r, stage.KindEncoder, e, slog.New(slog.NewTextHandler(log, nil)))
		}), stage.KindEncoder)
	}
	e, req := hop(hop(stagetest.New(stage.KindEncoder, script), &inner), &outer), stagetest.Request(stage.KindEncoder)
	if err := e.Load(t.Context(), stage.LoadRequest{Component: req.Components[0]}, nil); err != nil {
		t.Fatal(err)
	}
	_, err := e.Work(t.Context(), req, stage.Observer{})
	var fault *stage.Error
	if !errors.As(err, &fault) || fault.Reason != stage.EngineFault || fault.Metadata["stage"] != "encoder" {
		t.Fatalf("got %#v", err)
	}
	if id := fault.Metadata["incident_id"]; id == "" || !strings.Contains(inner.String(), id) || !strings.Contains(inner.String(), "segment 7") {
		t.Errorf("incident %q, log where it happened: %s", id, inner.String())
	}
	if outer.Len() > 0 {
		t.Errorf("log where it passed by: %s", outer.String())
	}
}

func TestStatusFitsTrailer(t *testing.T) {
	long := strings.Repeat("é\xff", 100_000)
	e := stage.Errorf(stage.InvalidField, "%s", long).With("field", long).With("value\xff", "\xfe")
	st := status.Convert(stagerpc.ToStatus(t.Context(), quiet(), e))
	if n := proto.Size(st.Proto()); n > 64<<10 || st.Code() != codes.InvalidArgument {
		t.Errorf("%v of %d bytes", st.Code(), n)
	}
	if _, err := proto.Marshal(st.Proto()); err != nil {
		t.Error(err)
	}
	kinds := slices.Collect(func(yield func(string) bool) {
		for _, d := range st.Details() {
			if !yield(fmt.Sprintf("%T", d)) {
				return
			}
		}
	})
	if diff := cmp.Diff([]string{"*errdetails.ErrorInfo", "*errdetails.BadRequest"}, kinds); diff != "" {
		t.Error(diff)
	}
}
