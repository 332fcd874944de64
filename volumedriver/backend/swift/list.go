package swift

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote"
)

// Bounds of a list.
const (
	// maxEntryBytes bounds an entry of a listing: a name of 1 KiB, escaped, and the
	// rest of it.
	maxEntryBytes = 4 << 10
	// listersMax is how many containers are asked at a time.
	listersMax = 8
	// leastPage is the least that is asked of one container of many, in objects.
	leastPage = 100
)

// entry is one of a listing.
type entry struct {
	Name     string `json:"name"`
	Bytes    int64  `json:"bytes"`
	Modified string `json:"last_modified"`
}

// List implements backend.Store: the listings of the containers that can hold the
// prefix, merged.
func (s *Store) List(ctx context.Context, prefix, after string, limit int) ([]backend.Info, error) {
	if s.closed.Load() {
		return nil, errClosed
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("list objects %q: %w", prefix, err)
	}
	if strings.Trim(prefix, "abcdefghijklmnopqrstuvwxyz0123456789._-/") != "" {
		return nil, nil // no name begins with it
	}
	limit = backend.ListLimit(limit)
	first, last := 0, s.o.Shards-1
	if shard, ok := s.shardOf(prefix); ok {
		first, last = shard, shard
	}
	sources := make([]*source, 0, last-first+1)
	ask := limit
	if last > first {
		ask = min(limit, max(leastPage, 2*limit/(last-first+1)))
	}
	ask = min(ask, s.found.ListLimit)
	for i := first; i <= last; i++ {
		sources = append(sources, &source{s: s, container: s.container(i), prefix: s.o.Prefix + prefix, after: s.o.Prefix + after, ask: ask})
	}
	if err := fillAll(ctx, sources); err != nil {
		return nil, err
	}
	return merge(ctx, s.o.Prefix, sources, limit)
}

// fillAll gets the first page of each source.
func fillAll(ctx context.Context, sources []*source) error {
	var wg sync.WaitGroup
	errs := make([]error, listersMax)
	for w := range min(listersMax, len(sources)) {
		wg.Go(func() {
			for i := w; i < len(sources) && errs[w] == nil; i += listersMax {
				errs[w] = sources[i].fill(ctx)
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// merge returns the first limit objects of all sources, in order.
func merge(ctx context.Context, prefix string, sources []*source, limit int) ([]backend.Info, error) {
	var out []backend.Info
	for len(out) < limit {
		var least *source
		for _, src := range sources {
			if err := src.fill(ctx); err != nil {
				return nil, err
			}
			if len(src.have) > 0 && (least == nil || src.have[0].Name < least.have[0].Name) {
				least = src
			}
		}
		if least == nil {
			break
		}
		e := least.have[0]
		least.have = least.have[1:]
		name := e.Name[len(prefix):]
		if backend.ValidName(name) != nil {
			continue // somebody else's
		}
		out = append(out, backend.Info{Name: name, Size: e.Bytes, ModTime: parseListTime(e.Modified)})
	}
	return out, nil
}

// source reads the listing of one container, page by page.
type source struct {
	s                        *Store
	container, prefix, after string
	ask                      int
	have                     []entry
	ended                    bool
}

// fill gets the next page when none is left of the last.
func (l *source) fill(ctx context.Context) error {
	if len(l.have) > 0 || l.ended {
		return nil
	}
	page, err := l.s.page(ctx, l.container, l.prefix, l.after, l.s.o.Prefix+reserved, l.ask)
	if errors.Is(err, remote.ErrNoContainer) {
		if _, ok := l.s.containers.known(l.container); ok {
			return err
		}
		err = nil // nothing was put into it yet
	}
	if err != nil {
		return err
	}
	l.have, l.ended = page, len(page) < l.ask
	if len(page) > 0 {
		l.after = page[len(page)-1].Name
	}
	return nil
}

// page returns up to limit objects of a container whose names begin with prefix, sort
// after "after" and before end, if that is not empty.
func (s *Store) page(ctx context.Context, container, prefix, after, end string, limit int) ([]entry, error) {
	q := url.Values{"format": {"json"}, "limit": {strconv.Itoa(limit)}}
	for key, v := range map[string]string{"prefix": prefix, "marker": after, "end_marker": end} {
		if v != "" {
			q.Set(key, v)
		}
	}
	r := request{op: "list objects in container", name: container, method: http.MethodGet, container: container, query: q}
	resp, err := s.do(ctx, r)
	if err != nil {
		return nil, err
	}
	b, err := body(ctx, r, resp, int64(limit+1)*maxEntryBytes)
	if err != nil || len(b) == 0 { // 204: nothing
		return nil, err
	}
	var entries []entry
	if err := json.Unmarshal(b, &entries); err != nil {
		return nil, wrong(r, resp, "an answer that is no listing")
	}
	if len(entries) > limit {
		return nil, wrong(r, resp, "%d objects, %d were asked for", len(entries), limit)
	}
	last := after
	for _, e := range entries {
		if e.Name <= last || !strings.HasPrefix(e.Name, prefix) || end != "" && e.Name >= end || e.Bytes < 0 {
			return nil, wrong(r, resp, "a listing that holds %.80q where it does not belong", e.Name)
		}
		last = e.Name
	}
	return entries, nil
}
