package stagetest_test

import (
	"testing"

	"github.com/triptych-serving/triptych/stage"
	"github.com/triptych-serving/triptych/stage/stagetest"
)

func TestContract(t *testing.T) {
	stagetest.ContractOfFakes(t, func(_ *testing.T, kind stage.Kind) (stage.Stage, *stagetest.Script) {
		script := &stagetest.Script{}
		script.Warm(stagetest.WarmBudget)
		return stagetest.New(kind, script), script
	})
}
