package model

import (
	"cmp"
	"container/heap"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"
)

// Paging bounds: a page is at most MaxPage items (reference/ui.md 3.2) and
// DefaultPage when the caller does not say.
const (
	DefaultPage = 100
	MaxPage     = 1000
)

// ErrCursor: a cursor was not made by this list in this order.
var ErrCursor = errors.New("invalid cursor")

// Keys orders a row: Text when the order is by text, Number otherwise; ID breaks ties.
type Keys struct {
	Text   string  `json:"t,omitempty"`
	Number float64 `json:"n,omitempty"`
	ID     string  `json:"i"`
}

func (k Keys) compare(o Keys) int {
	if c := cmp.Compare(k.Number, o.Number); c != 0 {
		return c
	}
	if c := strings.Compare(k.Text, o.Text); c != 0 {
		return c
	}
	return strings.Compare(k.ID, o.ID)
}

type cursor struct {
	Keys
	Sort string `json:"s"`
}

// Page sorts rows by keys (descending when desc), skips what the cursor has
// passed and returns up to limit rows with the cursor of the next page, empty
// at the end. order names the order; a cursor of another order is ErrCursor.
// Rows that come or go between pages move nothing else: a cursor is a place in
// the order, not a count.
func Page[T any](rows []T, keys func(T) Keys, order string, desc bool, cur string, limit int) ([]T, string, error) {
	if limit <= 0 {
		limit = DefaultPage
	}
	limit = min(limit, MaxPage)
	if desc {
		order = "-" + order
	}
	first := chosen{desc: desc, rows: make([]place, 0, min(limit+1, len(rows)))}
	var after *Keys
	if cur != "" {
		c, err := parseCursor(cur)
		if err != nil || c.Sort != order {
			return nil, "", ErrCursor
		}
		after = &c.Keys
	}
	for i := range rows {
		p := place{keys(rows[i]), i}
		switch {
		case after != nil && first.compare(p.k, *after) <= 0:
		case len(first.rows) <= limit:
			heap.Push(&first, p)
		case first.compare(p.k, first.rows[0].k) < 0:
			first.rows[0] = p
			heap.Fix(&first, 0)
		}
	}
	slices.SortFunc(first.rows, func(a, b place) int { return first.compare(a.k, b.k) })
	next := ""
	if len(first.rows) > limit {
		first.rows = first.rows[:limit]
		b, err := json.Marshal(cursor{first.rows[limit-1].k, order})
		if err != nil {
			return nil, "", err
		}
		next = base64.RawURLEncoding.EncodeToString(b)
	}
	out := make([]T, len(first.rows))
	for i, p := range first.rows {
		out[i] = rows[p.at]
	}
	return out, next, nil
}

// place is where a row is among those given.
type place struct {
	k  Keys
	at int
}

// chosen is a heap of the rows that come first, the last of them on top: a page of a list of
// many costs little more than a look at each.
type chosen struct {
	desc bool
	rows []place
}

func (c *chosen) compare(a, b Keys) int {
	if c.desc {
		a, b = b, a
	}
	return a.compare(b)
}

func (c *chosen) Len() int           { return len(c.rows) }
func (c *chosen) Less(i, j int) bool { return c.compare(c.rows[i].k, c.rows[j].k) > 0 }
func (c *chosen) Swap(i, j int)      { c.rows[i], c.rows[j] = c.rows[j], c.rows[i] }
func (c *chosen) Push(x any)         { c.rows = append(c.rows, x.(place)) }
func (c *chosen) Pop() any           { panic("a page drops no row but the last") }

func parseCursor(s string) (cursor, error) {
	var c cursor
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	return c, err
}
