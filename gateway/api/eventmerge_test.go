package api

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// FuzzPlaces: whatever a client sends is refused or read, and what is read is written as it was.
func FuzzPlaces(f *testing.F) {
	for _, s := range []string{"", "~", "12~", "~a.1", "1~a.1~b-c.18446744073709551615", "~a.1~", "~.1", "~a", "x~a.1", strings.Repeat("~a.1", 1000)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parsePlaces(text)
		if err != nil {
			return
		}
		again, err := parsePlaces(p.String())
		if err != nil || !again.at.Equal(p.at) || fmt.Sprint(again.seqs) != fmt.Sprint(p.seqs) || len(p.seqs) > maxPlaces {
			t.Errorf("%q is read as %v, and then as %v: %v", text, p, again, err)
		}
	})
}

// TestEventPages: pages of any size have each event of all sources once, by time, and a source that has
// to be read again ends its page.
func TestEventPages(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	history := func(node string, seqs, every int) (out []Event) { // the newest first
		for i := range seqs {
			out = append(out, Event{Node: node, Seq: int64(seqs - i), Time: start.Add(time.Duration((seqs-i)*every) * time.Second)})
		}
		return out
	}
	all := map[string][]Event{"a": history("a", 30, 7), "b": history("b", 50, 4), "c": nil}
	for _, read := range []int{1, 3, 100} { // events of one answer
		for _, limit := range []int{1, 4, 1000} {
			var got []Event
			cursor := places{}
			for pages := 0; ; pages++ {
				if pages > 200 {
					t.Fatal("it does not end")
				}
				m := &eventMerge{cursor: cursor}
				for _, id := range []string{"a", "b", "c"} {
					src := &eventSource{id: id, name: id}
					m.sources = append(m.sources, src)
					if m.place(src); src.ended {
						continue
					}
					left := slices.DeleteFunc(slices.Clone(all[id]), func(e Event) bool { return src.before != 0 && uint64(e.Seq) >= src.before })
					src.buf = left[:min(len(left), read)]
					before := uint64(0)
					if len(left) > read {
						before = uint64(left[read-1].Seq)
					}
					src.next(before, 0)
				}
				got = append(got, m.page(limit)...)
				next := m.next()
				if next == nil {
					break
				}
				var err error
				if cursor, err = parsePlaces(*next); err != nil {
					t.Fatal(err)
				}
			}
			if len(got) != 80 || !slices.IsSortedFunc(got, func(a, b Event) int { return b.Time.Compare(a.Time) }) {
				t.Errorf("answers of %d, pages of %d: %d events, or not by time", read, limit, len(got))
			}
			seen := map[string]bool{}
			for _, e := range got {
				seen[fmt.Sprint(e.Node, e.Seq)] = true
			}
			if len(seen) != 80 {
				t.Errorf("answers of %d, pages of %d: %d different events", read, limit, len(seen))
			}
		}
	}
}
