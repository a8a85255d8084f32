package release

import (
	"math"
	"testing"
)

const (
	gibi = int64(1) << 30
	mebi = int64(1) << 20
)

// triggers are all there are.
var triggers = []Trigger{PromptEncoded, DenoiseDone, VAEEncoded, VAEDecoded, UpscaleDone, ModelChanged, "lora_changed", JobBegin, JobEnd, OutOfMemory}

// share is a reading of a device of 1000 units of 1 GiB, of which so many are in use.
func share(thousandths int64) Reading {
	return Reading{Process: thousandths * gibi, HostUsed: thousandths * gibi, HostTotal: 1000 * gibi}
}

func TestDecide(t *testing.T) {
	type row struct {
		name    string
		policy  Policy
		force   bool
		reading Reading
		before  int64 // refused
		want    Decision
	}
	auto := func(threshold int) Policy { return Policy{threshold, Auto} }
	for _, c := range []row{
		{"empty", auto(80), false, share(0), 0, Decision{BelowThreshold, 0, 0, 80}},
		{"just below", auto(80), false, share(794), 0, Decision{BelowThreshold, 79, 79, 80}},
		{"a half goes to the even side, up", auto(80), false, share(795), 0, Decision{Threshold, 80, 80, 80}},
		{"a half goes to the even side, down", auto(81), false, share(805), 0, Decision{BelowThreshold, 80, 80, 81}},
		{"at it", auto(80), false, share(800), 0, Decision{Threshold, 80, 80, 80}},
		{"above", auto(80), false, share(801), 0, Decision{Threshold, 80, 80, 80}},
		{"at 0 an empty one does", auto(0), false, share(0), 0, Decision{Threshold, 0, 0, 0}},
		{"at 1", auto(1), false, share(5), 0, Decision{BelowThreshold, 0, 0, 1}},
		{"at 100 a full one does", auto(100), false, share(1000), 0, Decision{Threshold, 100, 100, 100}},
		{"at 100 one that rounds to full does", auto(100), false, share(996), 0, Decision{Threshold, 100, 100, 100}},
		{"at 100 others do not", auto(100), false, share(994), 0, Decision{BelowThreshold, 99, 99, 100}},

		{"the ledger alone", auto(80), false, Reading{LedgerUsed: 8 * gibi, LedgerCap: 10 * gibi, HostUsed: 1, HostTotal: 64 * gibi}, 0, Decision{Threshold, 80, 0, 80}},
		{"a ledger without a cap says nothing", auto(80), false, Reading{LedgerUsed: 60 * gibi, HostUsed: 1, HostTotal: 64 * gibi}, 0, Decision{BelowThreshold, 0, 0, 80}},
		{"the process alone", auto(80), false, Reading{Process: 60 * gibi, HostTotal: 64 * gibi}, 0, Decision{Threshold, 94, 0, 80}},
		{"other processes", auto(80), false, Reading{Process: gibi, HostUsed: 60 * gibi, HostTotal: 64 * gibi}, 0, Decision{Threshold, 2, 94, 80}},
		{"nothing is known", auto(80), false, Reading{}, 0, Decision{BelowThreshold, 0, 0, 80}},

		{"forced", auto(100), true, share(0), 0, Decision{Forced, 0, 0, 100}},
		{"forced says so first", auto(0), true, Reading{Refused: 1, HostTotal: gibi}, 0, Decision{Forced, 0, 0, 0}},
		{"one more refused", auto(100), false, Reading{Refused: 4}, 3, Decision{Refused, 0, 0, 100}},
		{"none more refused", auto(100), false, Reading{Refused: 4}, 4, Decision{BelowThreshold, 0, 0, 100}},

		{"a small machine", auto(80), false, Reading{HostTotal: 4 * gibi}, 0, Decision{LowMemory, 0, 0, 0}},
		{"one byte too large", auto(80), false, Reading{HostTotal: 4*gibi + 1}, 0, Decision{BelowThreshold, 0, 0, 80}},
		{"a small budget", auto(80), false, Reading{LedgerCap: 64 * mebi, HostTotal: 64 * gibi}, 0, Decision{LowMemory, 0, 0, 0}},
		{"a large budget", auto(80), false, Reading{LedgerCap: 8 * gibi, HostTotal: 64 * gibi}, 0, Decision{BelowThreshold, 0, 0, 80}},
		{"small, but off", Policy{80, Off}, false, Reading{HostTotal: gibi}, 0, Decision{BelowThreshold, 0, 0, 80}},
		{"large, but on", Policy{80, On}, false, share(0), 0, Decision{LowMemory, 0, 0, 0}},
	} {
		for _, trigger := range triggers {
			if got := c.policy.Decide(Event{trigger, c.force}, c.reading, c.before); got != c.want {
				t.Errorf("%s, %s: %+v (%v), want %+v (%v)", c.name, trigger, got, got.Reason, c.want, c.want.Reason)
			}
		}
	}
}

// torchGC is the formula as SD.Next has it, with its names and without ours.
func torchGC(force, lowvram bool, torchGCThreshold int, usedGPU, usedRAM float64, oom, previousOOM int64) bool {
	threshold := torchGCThreshold
	if lowvram {
		threshold = 0
	}
	run := force || threshold == 0
	run = run || math.RoundToEven(100*usedGPU) >= float64(threshold)
	run = run || math.RoundToEven(100*usedRAM) >= float64(threshold)
	return run || oom > previousOOM
}

// Every trigger, threshold, share in use of each kind, size, override, force and history against the formula.
func TestDecideEverything(t *testing.T) {
	cases, collected := 0, 0
	shares := []int64{0, 4, 5, 6, 695, 700, 705, 794, 795, 800, 805, 994, 995, 996, 1000, 1100}
	for _, trigger := range triggers {
		for _, threshold := range []int{0, 1, 70, 79, 80, 99, 100} {
			for _, device := range shares {
				for _, host := range shares {
					for _, total := range []int64{1000 * mebi, 4000 * mebi, 5000 * mebi, 64000 * mebi} {
						for _, override := range []Override{Auto, On, Off} {
							for _, force := range []bool{false, true} {
								for _, grew := range []int64{0, 1} {
									low := override == On || override == Auto && total <= 4000*mebi
									want := torchGC(force, low, threshold, float64(device)/1000, float64(host)/1000, 7+grew, 7)
									for _, r := range []Reading{
										{Process: total / 1000 * device, HostUsed: total / 1000 * host, HostTotal: total, Refused: 7 + grew},
										{LedgerUsed: total / 1000 * device, LedgerCap: total, HostUsed: total / 1000 * host, HostTotal: total, Refused: 7 + grew},
									} {
										cases++
										got := Policy{threshold, override}.Decide(Event{trigger, force}, r, 7)
										if got.Collect() != want {
											t.Fatalf("%s, threshold %d, %d and %d of 1000, %d bytes, %s, force %t, %d more refused: collects %t (%v), want %t",
												trigger, threshold, device, host, total, override, force, grew, got.Collect(), got.Reason, want)
										}
										if want {
											collected++
										}
									}
								}
							}
						}
					}
				}
			}
		}
	}
	if cases < 500_000 || collected == 0 || collected == cases {
		t.Errorf("%d of %d cases collect: the test shows nothing", collected, cases)
	}
}

func TestParse(t *testing.T) {
	for text, want := range map[string]int{"0": 0, "80": 80, "100": 100, "70%": 70, "": -1, "%": -1, "-1": -1, "101": -1, "7.5": -1, "80 %": -1, "full": -1, "80%%": -1} {
		got, err := ParseThreshold(text)
		if (err == nil) != (want >= 0) || err == nil && got != want {
			t.Errorf("threshold %q: %d, %v", text, got, err)
		}
	}
	for text, want := range map[string]Override{"auto": Auto, "on": On, "off": Off, "": "", "ON": "", "true": ""} {
		if got, err := ParseOverride(text); got != want || (err == nil) != (want != "") {
			t.Errorf("override %q: %q, %v", text, got, err)
		}
	}
}
