package fleet

import (
	"context"
	"errors"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagerpc"
)

// TestWordsOf: what a look failed with is told in words that stay the same however the connection ended.
func TestWordsOf(t *testing.T) {
	of := func(code codes.Code, text string) error {
		return stagerpc.FromStatus(status.Error(code, text), stage.KindEncoder)
	}
	for _, c := range []struct {
		err  error
		want string
	}{
		{of(codes.Unavailable, "write tcp 127.0.0.1:33001->127.0.0.1:7421: broken pipe"), unreached},
		{of(codes.Unavailable, "error reading server preface: EOF"), unreached},
		{of(codes.Unimplemented, "unknown service"), "the server there has no stage"},
		{of(codes.DeadlineExceeded, ""), silent},
		{context.DeadlineExceeded, silent},
		{errors.New("/secret/path"), unreached},
		{stage.Errorf(stage.StageOwned, "owned"), ownedElse},
		{stagerpc.Owned(stage.KindDecoder, "1", true), inherited},
		{stage.Errorf(stage.StageDraining, "draining"), draining},
		{stage.Errorf(stage.StageProtocolUnsupported, "no common protocol"), "no common protocol"},
	} {
		if got := wordsOf(c.err); got != c.want {
			t.Errorf("%v: %q, want %q", c.err, got, c.want)
		}
	}
}
