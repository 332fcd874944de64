package main

import (
	"math"
	"strconv"
	"strings"
	"testing"
)

func TestParseSize(t *testing.T) {
	for _, c := range []struct {
		text string
		want int64
	}{
		{"0", 0}, {"4096", 4096}, {"512B", 512}, {"1K", 1 << 10}, {"1k", 1 << 10}, {"64KiB", 64 << 10}, {"10GiB", 10 << 30},
		{"10 GiB", 10 << 30}, {"10gib", 10 << 30}, {"1T", 1 << 40}, {"64TiB", 64 << 40}, {"1P", 1 << 50},
		{"1KB", 1000}, {"1.5GB", 1_500_000_000}, {"1.5TiB", 3 << 39}, {"0.5K", 512}, {".5K", 512}, {"2.K", 2048},
		{"9223372036854775807", math.MaxInt64}, {"0.0000000000000000000000K", 0},
	} {
		if got, err := parseSize(c.text); err != nil || got != c.want {
			t.Errorf("%q: got %d, %v, want %d", c.text, got, err, c.want)
		}
	}
	for text, want := range map[string]string{
		"": "such as 10GiB", "GiB": "such as", "1X": "such as", "1GiBB": "such as", "1iB": "such as", "-1": "such as", "+1": "such as",
		"1e3": "such as", "0x10": "such as", "1/2": "such as", "1_000": "such as", "1.2.3": "such as", ".": "such as", "١": "such as",
		"1.5": "whole number", "0.1K": "whole number", "9223372036854775808": "out of range", "8192P": "out of range",
		strings.Repeat("9", 50): "such as", "NaN": "such as", "1 G iB": "such as",
	} {
		if got, err := parseSize(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %d, %v, want %q", text, got, err, want)
		}
	}
}

func TestFormatSize(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0B", 1: "1B", 1023: "1023B", 1024: "1KiB", 1536: "1.5KiB", 4096: "4KiB", 10 << 30: "10GiB", 64 << 40: "64TiB",
		1<<30 + 1: "1GiB", 1234567: "1.18MiB", 2000 << 30: "1.95TiB", math.MaxInt64: "8192PiB", -5: "-5B",
	} {
		if got := formatSize(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
}

// FuzzParseSize checks that a size that was printed is read back within what
// printing rounds: half a hundredth of its unit.
func FuzzParseSize(f *testing.F) {
	for _, s := range []string{"10GiB", "1.5T", "-", "1e9", "99999999999999999999P", "\xff", "8191.99P"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := parseSize(s)
		if err != nil {
			return
		}
		text := formatSize(n)
		number := strings.TrimRight(text, "BKMGTPi")
		shown, err := strconv.ParseFloat(number, 64)
		if err != nil {
			t.Fatalf("%d was printed as %s", n, text)
		}
		unit, err := parseSize("1" + text[len(number):])
		if err != nil {
			t.Fatalf("%d was printed as %s: %v", n, text, err)
		}
		if off := math.Abs(shown*float64(unit) - float64(n)); n < 0 || off > 0.0051*float64(unit) {
			t.Fatalf("%q is %d, printed as %s", s, n, text)
		}
	})
}
