package denoiser_test

import (
	"testing"

	"github.com/triptych-serving/triptych/services/denoiser"
	"github.com/triptych-serving/triptych/services/internal/servicetest"
	"github.com/triptych-serving/triptych/stage"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

func TestService(t *testing.T) { servicetest.Test(t, stage.KindDenoiser, denoiser.New) }
