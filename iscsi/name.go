package iscsi

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

const maxName = 223 // RFC 7143 section 4.2.7.1, bytes

// CheckName says whether s is an iSCSI node name: iqn., eui. or naa. form (RFC
// 7143 section 4.2.7, RFC 3722). Upper case letters are accepted; names compare
// after NormalizeName.
func CheckName(s string) error {
	n := NormalizeName(s)
	bad := func(why string) error {
		return fmt.Errorf("iscsi: name %q: %s; use for example iqn.2026-01.com.example:disk1", s, why)
	}
	if len(s) == 0 || len(s) > maxName || len(n) > maxName {
		return bad(fmt.Sprintf("must have 1 to %d bytes", maxName))
	}
	if !utf8.ValidString(s) {
		return bad("is not UTF-8")
	}
	switch {
	case strings.HasPrefix(n, "iqn."):
		return checkIQN(n, bad)
	case strings.HasPrefix(n, "eui."):
		if len(n) != 4+16 || !isHex(n[4:]) {
			return bad("eui. takes 16 hexadecimal digits")
		}
	case strings.HasPrefix(n, "naa."):
		if len(n) != 4+16 && len(n) != 4+32 || !isHex(n[4:]) {
			return bad("naa. takes 16 or 32 hexadecimal digits")
		}
	default:
		return bad("must begin with iqn., eui. or naa.")
	}
	return nil
}

func checkIQN(n string, bad func(string) error) error {
	rest := n[4:]
	if len(rest) < 9 || rest[4] != '-' || rest[7] != '.' || !isDigits(rest[:4]) || !isDigits(rest[5:7]) ||
		rest[5:7] < "01" || rest[5:7] > "12" {
		return bad("iqn. is followed by yyyy-mm, a dot and a reversed domain name")
	}
	if d, _, _ := strings.Cut(rest[8:], ":"); d == "" {
		return bad("the naming authority is empty")
	}
	for _, r := range rest {
		if r == '-' || r == '.' || r == ':' {
			continue
		}
		if r < utf8.RuneSelf {
			if !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9') {
				return bad(fmt.Sprintf("character %q is not allowed", r))
			}
		} else if !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsMark(r) {
			return bad(fmt.Sprintf("character %q is not allowed", r))
		}
	}
	return nil
}

// NormalizeName folds a node name to the form in which names are compared.
func NormalizeName(s string) string { return strings.ToLower(s) }

func isDigits(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

func isHex(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i] | 0x20
		if !(s[i] >= '0' && s[i] <= '9' || c >= 'a' && c <= 'f') {
			return false
		}
	}
	return true
}

// validText tells whether s can stand in a text key value: printable, no
// control characters, ASCII.
func validText(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}
