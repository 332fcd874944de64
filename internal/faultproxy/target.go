package faultproxy

import (
	"net/http"
	"slices"
	"strings"
)

// target is what a request is about.
type target int

const (
	other  target = iota // a container, an account, a token
	object               // an object
	list                 // objects of a container
)

// targetOf reads the path.
func (p *Proxy) targetOf(r *http.Request) target {
	path, depth := strings.TrimPrefix(r.URL.Path, "/"), 1
	if p.o.Protocol == Swift {
		var ok bool
		if path, ok = strings.CutPrefix(path, "v1/"); !ok {
			return other
		}
		depth = 2
	}
	parts := strings.SplitN(path, "/", depth+1)
	switch {
	case len(parts) > depth && parts[depth] != "":
		return object
	case len(parts) >= depth && parts[depth-1] != "" && r.Method == http.MethodGet && p.isList(r):
		return list
	}
	return other
}

// isList tells a list from the other things that a container is asked for.
func (p *Proxy) isList(r *http.Request) bool {
	q := r.URL.Query()
	return p.o.Protocol == Swift || q.Has("list-type") || q.Has("prefix") && !q.Has("uploads")
}

// concern returns the kinds that concern a request.
func (p *Proxy) concern(r *http.Request, t target) []Kind {
	among := []Kind{Refuse5xx, Throttle, Stall}
	change := t == object && (r.Method == http.MethodPut || r.Method == http.MethodDelete)
	for k, is := range map[Kind]bool{
		ResetRequest:  r.ContentLength != 0,
		ResetResponse: r.Method == http.MethodGet,
		Truncate:      r.Method == http.MethodGet,
		Flip:          r.Method == http.MethodGet && t == object,
		StaleList:     t == list,
		Duplicate:     change,
		DuplicateLate: change,
		LostAnswer:    change,
		FalseSuccess:  change && r.Method == http.MethodPut,
		ExpireToken:   p.o.Protocol == Swift && r.Header.Get("X-Auth-Token") != "",
		ClockSkew:     p.o.Protocol == S3,
	} {
		if is {
			among = append(among, k)
		}
	}
	slices.Sort(among) // a seed gives the same faults again
	return among
}
