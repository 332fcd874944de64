package iscsi

import (
	"bytes"
	"errors"
	"strings"
)

const (
	maxKey      = 63   // RFC 7143 section 6.1
	maxValue    = 8192 // the same; larger values need both sides' consent
	maxTextKeys = 128  // far above the ~25 keys that exist
	// maxTextBytes bounds a text spread over several PDUs by the C bit.
	maxTextBytes = 16 << 10
)

// keyValue is one text key.
type keyValue struct{ key, value string }

var (
	errText     = errors.New("iscsi: malformed text")
	errTextSize = errors.New("iscsi: text too long")
)

// parseText decodes "key=value NUL ..." (RFC 7143 section 6.1).
func parseText(b []byte) ([]keyValue, error) {
	var out []keyValue
	for len(b) > 0 {
		s, rest, _ := bytes.Cut(b, []byte{0})
		b = rest
		if len(s) == 0 {
			continue // initiators pad with NULs inside the data segment
		}
		k, v, ok := strings.Cut(string(s), "=")
		if !ok || k == "" || len(k) > maxKey {
			return nil, errText
		}
		if len(v) > maxValue || len(out) == maxTextKeys {
			return nil, errTextSize
		}
		for _, o := range out {
			if o.key == k {
				return nil, errText // a key is sent once
			}
		}
		out = append(out, keyValue{k, v})
	}
	return out, nil
}

// textWriter builds a text response.
type textWriter struct{ b []byte }

func (w *textWriter) add(key, value string) {
	w.b = append(w.b, key...)
	w.b = append(w.b, '=')
	w.b = append(w.b, value...)
	w.b = append(w.b, 0)
}
