package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Values of -o.
const (
	outputTable = "table"
	outputJSON  = "json"
)

// list is how all items of a list are printed as JSON: the API's shape.
type list[T any] struct {
	Items []T     `json:"items"`
	Next  *string `json:"next"`
}

// printList prints items, one row each.
func printList[T any](a *app, items []T, header []string, row func(T) []string) error {
	if a.output == outputJSON {
		if items == nil {
			items = []T{}
		}
		return printJSON(a.out, list[T]{Items: items})
	}
	rows := [][]string{header}
	for _, item := range items {
		rows = append(rows, row(item))
	}
	return printRows(a.out, rows)
}

// printOne prints one object: as JSON, or as rows of a name and a value.
func printOne(a *app, v any, rows [][]string) error {
	if a.output == outputJSON {
		return printJSON(a.out, v)
	}
	return printRows(a.out, rows)
}

// printJSON prints v indented.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// printRows prints rows in columns two spaces apart, none after the last.
func printRows(w io.Writer, rows [][]string) error {
	var width []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(width) {
				width = append(width, 0)
			}
			width[i] = max(width[i], utf8.RuneCountInString(clean(cell)))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		for i, cell := range row {
			cell = clean(cell)
			b.WriteString(cell)
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell)+2))
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, strings.ReplaceAll(b.String(), " \n", "\n"))
	return err
}

// clean replaces what could steer a terminal (invariant 3).
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == utf8.RuneError || unicode.Is(unicode.Cf, r) {
			return '?'
		}
		return r
	}, s)
}

// cleanLines is clean for a text of several lines.
func cleanLines(s string) []string {
	var lines []string
	for line := range strings.Lines(s) {
		lines = append(lines, clean(strings.TrimRight(line, "\r\n")))
	}
	return lines
}

// formatTime prints a time to the second, in UTC; nil is never.
func formatTime(t *time.Time) string {
	if t == nil {
		return "never"
	}
	return t.UTC().Format(time.RFC3339)
}

// formatMicros prints a latency given in microseconds; 0 is unknown.
func formatMicros(us float64) string {
	switch {
	case us <= 0:
		return "-"
	case us < 1000:
		return fmt.Sprintf("%.0fus", us)
	case us < 1e6:
		return fmt.Sprintf("%.2fms", us/1e3)
	}
	return fmt.Sprintf("%.2fs", us/1e6)
}

// formatMillis prints a duration given in milliseconds.
func formatMillis(ms int64) string { return (time.Duration(ms) * time.Millisecond).String() }

// yesNo prints a bool.
func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// dash prints an empty text as a dash.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
