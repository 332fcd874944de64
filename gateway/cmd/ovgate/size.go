package main

import (
	"fmt"
	"math/big"
	"strconv"
	"strings"
)

// Sizes on the command line are a decimal number, maybe with a point, and a unit
// as GNU tools take it: none or B is bytes; K, M, G, T, P and KiB, MiB, ... are
// powers of 1024; KB, MB, ... are powers of 1000. Upper and lower case are alike.

// units are the letters of the powers.
const units = "KMGTP"

// parseSize returns the bytes that s says: whole, and at most 2^63-1.
func parseSize(s string) (int64, error) {
	number := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
	factor, ok := unitFactor(strings.ToUpper(s[len(number):]))
	number = strings.TrimSpace(number)
	if !ok || number == "" || strings.Trim(number, "0123456789.") != "" || len(number) > 40 {
		return 0, fmt.Errorf("size %q: write a number with a unit, such as 10GiB, 512M or 4096", s)
	}
	value, ok := new(big.Rat).SetString(number)
	if !ok {
		return 0, fmt.Errorf("size %q: write a number with a unit, such as 10GiB, 512M or 4096", s)
	}
	value.Mul(value, new(big.Rat).SetInt(factor))
	if !value.IsInt() {
		return 0, fmt.Errorf("size %q is not a whole number of bytes", s)
	}
	if !value.Num().IsInt64() {
		return 0, fmt.Errorf("size %q is out of range", s)
	}
	return value.Num().Int64(), nil
}

// unitFactor returns the bytes of a unit in upper case.
func unitFactor(unit string) (*big.Int, bool) {
	if unit == "" || unit == "B" {
		return big.NewInt(1), true
	}
	i := strings.IndexByte(units, unit[0])
	if i < 0 {
		return nil, false
	}
	var base int64
	switch unit[1:] {
	case "", "IB":
		base = 1024
	case "B":
		base = 1000
	default:
		return nil, false
	}
	return new(big.Int).Exp(big.NewInt(base), big.NewInt(int64(i+1)), nil), true
}

// formatSize writes bytes with the largest unit of 1024 that leaves at least 1,
// rounded to two decimals; parseSize reads what was not rounded back.
func formatSize(n int64) string {
	if n < 0 {
		return strconv.FormatInt(n, 10) + "B"
	}
	unit, shift := "B", 0
	for i := 0; i < len(units) && n>>(shift+10) > 0; i++ {
		unit, shift = units[i:i+1]+"iB", shift+10
	}
	if n&(1<<shift-1) == 0 {
		return strconv.FormatInt(n>>shift, 10) + unit
	}
	text := strconv.FormatFloat(float64(n)/float64(int64(1)<<shift), 'f', 2, 64)
	return strings.TrimSuffix(strings.TrimRight(text, "0"), ".") + unit
}

// sizeFlag is a flag or argument that takes a size.
type sizeFlag struct {
	bytes int64
	set   bool
}

// Set implements pflag.Value.
func (f *sizeFlag) Set(s string) error {
	n, err := parseSize(s)
	if err == nil {
		f.bytes, f.set = n, true
	}
	return err
}

// String implements pflag.Value.
func (f *sizeFlag) String() string {
	if !f.set {
		return ""
	}
	return formatSize(f.bytes)
}

// Type implements pflag.Value.
func (f *sizeFlag) Type() string { return "SIZE" }

// ptr returns the value, or nil when the flag was not given.
func (f *sizeFlag) ptr() *int64 {
	if !f.set {
		return nil
	}
	return &f.bytes
}
