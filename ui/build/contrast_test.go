package build

import (
	"math"
	"os"
	"regexp"
	"strconv"
	"testing"
)

// grounds are the tokens that text and glyphs are drawn on.
var grounds = []string{"bg", "surface", "raised", "sunken", "accent-soft"}

// inks are the tokens drawn on any ground with the least contrast WCAG 2.2 asks of their use: 7 for
// body text (AAA), 4.5 for other text (1.4.3), 3 for lines of charts, borders and focus (1.4.11).
var inks = map[string]float64{
	"ink": 7, "ink-2": 4.5, "ink-3": 4.5, "accent": 4.5,
	"ok": 4.5, "warn": 4.5, "bad": 4.5, "info": 4.5, "idle": 4.5,
	"c1": 3, "c2": 3, "c3": 3, "c4": 3, "c5": 3, "c6": 3, "c7": 3, "c8": 3, "line-strong": 3, "focus": 3,
}

// TestContrast checks every ink on every ground in both themes.
func TestContrast(t *testing.T) {
	tokens := readTokens(t)
	for ink, least := range inks {
		for _, ground := range grounds {
			checkPair(t, tokens, ink, ground, least)
		}
	}
	checkPair(t, tokens, "accent-ink", "accent", 4.5)
	checkPair(t, tokens, "bad-ink", "bad", 4.5)
}

func checkPair(t *testing.T, tokens map[string][2]string, ink, ground string, least float64) {
	t.Helper()
	for i, theme := range []string{"light", "dark"} {
		a, b := luminance(t, tokens[ink][i]), luminance(t, tokens[ground][i])
		ratio := (math.Max(a, b) + 0.05) / (math.Min(a, b) + 0.05)
		if ratio < least {
			t.Errorf("--%s on --%s (%s): contrast %.2f, at least %.1f is needed", ink, ground, theme, ratio, least)
		}
	}
}

// readTokens returns light and dark value of each colour token in src/css/tokens.css, and of those that a page adds.
func readTokens(t *testing.T) map[string][2]string {
	t.Helper()
	var css []byte
	for _, name := range []string{"../src/css/tokens.css", "../src/pages/PerformanceSheet.ts"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		css = append(css, text...)
	}
	tokens := map[string][2]string{}
	pattern := regexp.MustCompile(`--([\w-]+):\s*light-dark\((#[0-9a-f]{6}),\s*(#[0-9a-f]{6})\)`)
	for _, m := range pattern.FindAllStringSubmatch(string(css), -1) {
		tokens[m[1]] = [2]string{m[2], m[3]}
	}
	return tokens
}

// luminance is the relative luminance of an sRGB colour "#rrggbb", 0 to 1 (WCAG 2.2, definition).
func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	if len(hex) != 7 {
		t.Fatalf("token is missing or not of the form light-dark(#rrggbb, #rrggbb): %q", hex)
	}
	var linear [3]float64
	for i := range linear {
		n, err := strconv.ParseUint(hex[1+2*i:3+2*i], 16, 8)
		if err != nil {
			t.Fatal(err)
		}
		v := float64(n) / 255
		if v <= 0.04045 {
			linear[i] = v / 12.92
		} else {
			linear[i] = math.Pow((v+0.055)/1.055, 2.4)
		}
	}
	return 0.2126*linear[0] + 0.7152*linear[1] + 0.0722*linear[2]
}
