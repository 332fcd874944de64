package syslog

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/openvstorage/ovgate/gateway/observe/event"
)

const (
	facility = 3 // daemon
	// maxMessage bounds a message, in bytes: what every receiver takes (RFC 5424, 6.1).
	maxMessage = 2048
	// maxHost bounds the name of the host, in bytes (RFC 5424, 6).
	maxHost = 255
)

// severityOf is the severity of RFC 5424.
func severityOf(s event.Severity) int {
	switch s {
	case event.Error:
		return 3
	case event.Warning:
		return 4
	}
	return 6
}

// message is an event as RFC 5424 has it. The private enterprise number is that of examples
// (RFC 5612): the project has none.
func message(host string, pid int, e event.Event) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "<%d>1 %s %s ovgate %d %s [event@32473 object=\"%s\" seq=\"%d\"]", facility*8+severityOf(e.Severity), e.Time.UTC().Format("2006-01-02T15:04:05.000000Z"), nameOf(host), pid, e.Code, param(e.Object), e.Seq)
	text := e.Text
	if e.Object != "" {
		text = e.Object + ": " + text
	}
	if e.Hint != "" {
		text += " [" + e.Hint + "]"
	}
	b.WriteString(" \ufeff")
	b.WriteString(plain(text))
	return []byte(cut(b.String(), maxMessage))
}

// nameOf is a name as a header has it: printable US-ASCII without spaces.
func nameOf(host string) string {
	out := strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '_'
		}
		return r
	}, host)
	if out == "" {
		return "-"
	}
	return out[:min(len(out), maxHost)]
}

// plain replaces control characters (Y3).
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// param escapes the value of a parameter (RFC 5424, 6.3.3).
func param(s string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, `]`, `\]`).Replace(plain(s))
}

// cut bounds a text, between two runes.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "")
}

// frame is a message as a stream has it: its length goes before it.
func frame(m []byte) []byte { return fmt.Appendf(nil, "%d %s", len(m), m) }
