package model

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"sort"
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
	return cmp.Or(cmp.Compare(k.Number, o.Number), cmp.Compare(k.Text, o.Text), cmp.Compare(k.ID, o.ID))
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
	type item struct {
		k Keys
		v T
	}
	items := make([]item, len(rows))
	for i, r := range rows {
		items[i] = item{keys(r), r}
	}
	dir := 1
	if desc {
		dir = -1
	}
	slices.SortFunc(items, func(a, b item) int { return dir * a.k.compare(b.k) })
	if cur != "" {
		c, err := parseCursor(cur)
		if err != nil || c.Sort != order {
			return nil, "", ErrCursor
		}
		items = items[sort.Search(len(items), func(i int) bool { return dir*items[i].k.compare(c.Keys) > 0 }):]
	}
	next := ""
	if len(items) > limit {
		items = items[:limit]
		b, err := json.Marshal(cursor{items[limit-1].k, order})
		if err != nil {
			return nil, "", err
		}
		next = base64.RawURLEncoding.EncodeToString(b)
	}
	out := make([]T, len(items))
	for i := range items {
		out[i] = items[i].v
	}
	return out, next, nil
}

func parseCursor(s string) (cursor, error) {
	var c cursor
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	return c, err
}
