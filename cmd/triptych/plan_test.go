package main

import "testing"

func TestPlanTexts(t *testing.T) {
	for n, want := range map[int64]string{0: "0MiB", 1: "1", 1 << 20: "1MiB", 3 << 10: "3KiB", 10_000_000: "10000000", 3 << 30: "3072MiB"} {
		got := flagSize(n)
		var back byteSize
		if err := back.Set(got); got != want || err != nil || int64(back) != n {
			t.Errorf("%d bytes as %q, want %q, read as %d, %v", n, got, want, back, err)
		}
	}
	for s, want := range map[float64]string{0: "0 s", 0.0001: "less than 0.001 s", 0.01234: "0.012 s", 0.5: "0.500 s", 2.345: "2.35 s", 44.04: "44.0 s", 1234.5: "1234 s"} {
		if got := secondsText(s); got != want {
			t.Errorf("%v as %q, want %q", s, got, want)
		}
	}
	if got := convolutions(map[string]int{"direct": 2, "winograd4": 41, "winograd2": 2}); got != "winograd4 41, direct 2, winograd2 2" {
		t.Error(got)
	}
	var rate byteRate
	for text, want := range map[string]int64{"500MB/s": 500_000_000, "1GiB": 1 << 30, "0": -1, "fast": -1, "-1MB/s": -1} {
		if err := rate.Set(text); (err != nil) != (want < 0) || err == nil && int64(rate) != want {
			t.Errorf("%q: %d, %v", text, rate, err)
		}
	}
}
