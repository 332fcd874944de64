package backend

import (
	"errors"
	"strings"
	"testing"
)

func TestValidName(t *testing.T) {
	seg := strings.Repeat("x", MaxSegmentBytes)
	for name, ok := range map[string]bool{
		"a":                               true,
		"head":                            true,
		"v1/sco/00a-_.7":                  true,
		"...":                             true,
		".hidden/..x":                     true,
		seg:                               true,
		seg + "/" + seg + "/" + seg[:110]: true, // 512 bytes
		seg + "/" + seg + "/" + seg[:111]: false,
		seg + "x":                         false,
		"":                                false,
		"/":                               false,
		"/a":                              false,
		"a/":                              false,
		"a//b":                            false,
		".":                               false,
		"a/..":                            false,
		"../a":                            false,
		"a/./b":                           false,
		"A":                               false,
		"a b":                             false,
		"a~":                              false,
		"a\\b":                            false,
		"a\x00":                           false,
		"é":                               false,
		"a:b":                             false,
	} {
		err := ValidName(name)
		if ok && err != nil {
			t.Errorf("%.60q refused: %v", name, err)
		}
		if !ok && !errors.Is(err, ErrInvalidName) {
			t.Errorf("%.60q: error %v", name, err)
		}
		if err != nil && len(err.Error()) > 300 {
			t.Errorf("%.60q: error of %d bytes", name, len(err.Error()))
		}
	}
}

// Whatever passes stays below a root when it is used as a path.
func FuzzValidName(f *testing.F) {
	for _, s := range []string{"a", "a/b", "..", "a/../b", "a//b", "\x00", "/x", strings.Repeat("a/", 300)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if ValidName(name) != nil {
			return
		}
		if len(name) > MaxNameBytes || strings.HasPrefix(name, "/") || strings.HasSuffix(name, "/") {
			t.Fatalf("%q passed", name)
		}
		for _, seg := range strings.Split(name, "/") {
			if seg == "" || seg == "." || seg == ".." || len(seg) > MaxSegmentBytes ||
				strings.Trim(seg, "abcdefghijklmnopqrstuvwxyz0123456789._-") != "" {
				t.Fatalf("%q passed with segment %q", name, seg)
			}
		}
	})
}

func TestListLimit(t *testing.T) {
	for ask, want := range map[int]int{-1: 1000, 0: 1000, 1: 1, 9999: 9999, 10000: 10000, 1 << 40: 10000} {
		if got := ListLimit(ask); got != want {
			t.Errorf("limit %d: %d, want %d", ask, got, want)
		}
	}
}
