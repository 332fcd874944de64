package linelog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
)

// Record is what a log has: something with a number, in JSON.
type Record[R any] interface {
	Number() uint64
	// Numbered returns the record with another number.
	Numbered(n uint64) R
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// line is a record as it is in a file.
func line(r any) ([]byte, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "%08x %s\n", crc32.Checksum(b, castagnoli), b), nil
}

// parse reads a line without its end; false: it is damaged.
func parse[R any](line []byte) (r R, ok bool) {
	sum, text, ok := bytes.Cut(line, []byte(" "))
	if !ok {
		return r, false
	}
	want, err := strconv.ParseUint(string(sum), 16, 32)
	if err != nil || uint32(want) != crc32.Checksum(text, castagnoli) {
		return r, false
	}
	return r, json.Unmarshal(text, &r) == nil
}

// scan reads the lines of a file: the records in their order, the length up to the end of
// the last good line, and how many damaged ones are before that.
func scan[R Record[R]](b []byte) (records []R, good int64, damaged int) {
	bad, at := 0, int64(0)
	for len(b) > 0 {
		line, rest, ended := bytes.Cut(b, []byte("\n"))
		at += int64(len(b) - len(rest))
		r, ok := parse[R](line)
		b = rest
		if !ended || !ok {
			bad++
			continue
		}
		good, damaged = at, damaged+bad
		bad = 0
		if n := len(records); n > 0 && r.Number() <= records[n-1].Number() {
			continue // a write that failed was repeated (N2)
		}
		records = append(records, r)
	}
	return records, good, damaged
}

const (
	nameSuffix = ".log"
	nameDigits = 16
)

func (o Options) fileName(first uint64) string {
	return fmt.Sprintf("%s-%0*x%s", o.Name, nameDigits, first, nameSuffix)
}

// parseName returns the first number of a file; false: it is another kind of file.
func (o Options) parseName(name string) (uint64, bool) {
	s, ok := strings.CutPrefix(name, o.Name+"-")
	s, ok2 := strings.CutSuffix(s, nameSuffix)
	if !ok || !ok2 || len(s) != nameDigits {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 16, 64)
	return n, err == nil
}

// maxText bounds a text of a record, in runes.
const maxText = 256

// Clip bounds a text of a record.
func Clip(s string) string {
	s = strings.ToValidUTF8(s, "?")
	n := 0
	for i := range s {
		if n++; n > maxText {
			return s[:i] + "…"
		}
	}
	return s
}
