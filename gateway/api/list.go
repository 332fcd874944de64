package api

import (
	"strings"

	"github.com/openvstorage/ovgate/gateway/model"
)

// page answers one page of rows.
func page[T any](rows []T, keys func(T) model.Keys, order string, desc bool, cursor *string, limit *int) ([]T, *string, error) {
	cur, n := "", model.DefaultPage
	if cursor != nil {
		cur = *cursor
	}
	if limit != nil {
		if *limit < 1 || *limit > model.MaxPage {
			return nil, nil, refuseField("limit", "", "a page has 1 to %d items", model.MaxPage)
		}
		n = *limit
	}
	items, next, err := model.Page(rows, keys, order, desc, cur, n)
	if err != nil {
		return nil, nil, err
	}
	return items, some(next), nil
}

// matches tells whether a name or a label contains q, whatever the case.
func matches(q *string, name string, labels map[string]string) bool {
	if q == nil || *q == "" {
		return true
	}
	want := strings.ToLower(*q)
	if strings.Contains(strings.ToLower(name), want) {
		return true
	}
	for k, v := range labels {
		if strings.Contains(strings.ToLower(k), want) || strings.Contains(strings.ToLower(v), want) {
			return true
		}
	}
	return false
}

// order reads a sort parameter: a known name, "-" in front for descending.
func order[T any](sort *string, known map[string]func(T) model.Keys) (string, bool, func(T) model.Keys, error) {
	name := "name"
	if sort != nil && *sort != "" {
		name = *sort
	}
	name, desc := strings.CutPrefix(name, "-")
	keys, ok := known[name]
	if !ok {
		return "", false, nil, refuseField("sort", "openapi.yaml lists the orders", "there is no order %q", name)
	}
	return name, desc, keys, nil
}
