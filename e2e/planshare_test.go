//go:build linux

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestPlanCountsEqualPartsOnce: beside a model, a fine-tune of which one file differs costs one U-Net, whatever their order.
func TestPlanCountsEqualPartsOnce(t *testing.T) {
	folder := t.TempDir()
	base, tuned := filepath.Join(folder, "base"), filepath.Join(folder, "tuned")
	for _, dir := range []string{base, tuned} {
		if err := os.CopyFS(dir, os.DirFS("../testdata/golden/tiny-sd15")); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(tuned, "unet/diffusion_pytorch_model.safetensors")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-1] ^= 1
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, order := range [][]string{{base, tuned}, {tuned, base}} {
		all, _ := runPlans(t, order...)
		together, alone := all.Together, all.Models[0]
		if got := fmt.Sprint(together.Shared); got != "[{encoder [base tuned]} {decoder [base tuned]}]" || together.NotCompared != nil {
			t.Errorf("shared are %s, not compared %v", got, together.NotCompared)
		}
		if want := alone.AllBytes + alone.Stages[1].WeightsBytes; together.AllBytes != want || together.LeastBudgetBytes != alone.LeastBudgetBytes {
			t.Errorf("together %+v, want one denoiser more: %d", together, want)
		}
		// In what evicts nothing, nothing is; in what the largest stage takes, all is.
		for budget, reloaded := range map[int64]int{together.AllBytes: 0, together.LeastBudgetBytes: 4} {
			all, _ := runPlans(t, append(order, "--memory-budget", strconv.FormatInt(budget, 10), "--load-bandwidth", "1MB/s")...)
			p := all.Together
			if len(p.Reloaded) != reloaded || len(p.Resident) != 4-reloaded || slices.Contains(append(p.Resident, p.Reloaded...), "tuned encoder") {
				t.Errorf("in %d bytes %v stay and %v are loaded again", budget, p.Resident, p.Reloaded)
			}
		}
	}
	if got := runCommand(t, "plan", base, tuned); got.code != 0 || !strings.Contains(got.stdout, "Shared, being equal: encoder of base, tuned; decoder of base, tuned.\n") {
		t.Errorf("exit code %d: %s%s", got.code, got.stdout, got.stderr)
	}
}
