package swift

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote"
)

// reserved begins, after the prefix, the names that are no objects.
const reserved = "~"

// maxManifestBytes bounds the manifest of a large object: 1000 segments of 1 KiB each.
const maxManifestBytes = 2 << 20

// Put implements backend.Store (W4, W5).
func (s *Store) Put(ctx context.Context, name string, data []byte) error {
	if err := s.start(ctx, name); err != nil {
		return err
	}
	r := s.object("PUT object", http.MethodPut, name)
	if err := s.containers.ensure(ctx, s, r.container); err != nil {
		return err
	}
	most := s.found.MaxObjectBytes
	if n := s.o.SegmentBytes; n > 0 {
		most = min(most, n)
	}
	switch {
	case int64(len(data)) <= most:
		return s.put(ctx, r, data)
	case s.o.SegmentBytes == 0:
		return fmt.Errorf("object %s: %w: %d bytes, the cluster takes %d: use smaller objects or segments", name, backend.ErrUnsupported, len(data), most)
	}
	return s.putLarge(ctx, r, data, int(most))
}

// put stores one object.
func (s *Store) put(ctx context.Context, r request, data []byte) error {
	sum := md5.Sum(data)
	want := hex.EncodeToString(sum[:])
	r.body = data
	r.header = http.Header{"Etag": {want}, "Content-Type": {"application/octet-stream"}}
	return s.stored(ctx, r, want, int64(len(data)))
}

// stored sends a PUT and makes sure that its answer tells that these bytes are there.
func (s *Store) stored(ctx context.Context, r request, want string, size int64) error {
	resp, err := s.do(ctx, r)
	switch {
	case errors.Is(err, backend.ErrNotExist):
		return s.containers.lost(s.o.Clock.Now(), r.container, err)
	case err != nil && !conflict(err):
		return err
	case err == nil:
		drop(resp)
		if resp.StatusCode == http.StatusCreated {
			if got := etag(resp.Header); got != want {
				return wrong(r, resp, "the store has MD5 %.40q, %s was sent", got, want)
			}
			return nil
		}
	}
	// 202 or 409: something newer is there.
	look := r
	look.method, look.body, look.query = http.MethodHead, nil, nil
	there, herr := s.head(ctx, look)
	switch {
	case herr == nil && etag(there.Header) == want && there.ContentLength == size:
		return nil
	case herr != nil && !errors.Is(herr, backend.ErrNotExist):
		return herr
	case err != nil:
		return err
	}
	return wrong(r, resp, "the store kept something newer of that name: the clocks of its nodes may differ")
}

// segment is an entry of a manifest as it is put.
type segment struct {
	Path string `json:"path"`
	Etag string `json:"etag"`
	Size int    `json:"size_bytes"`
}

// putLarge stores an object in segments of n bytes. Their names follow from the bytes,
// so that a repeated Put writes the same (S2).
func (s *Store) putLarge(ctx context.Context, r request, data []byte, n int) error {
	if count := (len(data) + n - 1) / n; !s.found.SLO || count > s.found.MaxSegments {
		return fmt.Errorf("object %s: %w: %d segments, the cluster takes %d", r.name, backend.ErrUnsupported, count, s.found.MaxSegments)
	}
	whole := md5.Sum(data)
	dir := fmt.Sprintf("%s%d-%x/", s.segments(r.name), len(data), whole)
	var all []segment
	sums := md5.New()
	for i := 0; i*n < len(data); i++ {
		part := data[i*n : min(len(data), (i+1)*n)]
		seg := r
		seg.op, seg.object = "PUT segment of object", fmt.Sprintf("%s%05d", dir, i)
		if err := s.put(ctx, seg, part); err != nil {
			return err
		}
		sum := md5.Sum(part)
		all = append(all, segment{Path: r.container + "/" + seg.object, Etag: hex.EncodeToString(sum[:]), Size: len(part)})
		sums.Write([]byte(all[i].Etag))
	}
	manifest, err := json.Marshal(all)
	if err != nil {
		return err
	}
	r.op, r.body = "PUT manifest of object", manifest
	r.query = url.Values{"multipart-manifest": {"put"}}
	want := hex.EncodeToString(sums.Sum(nil))
	r.header = http.Header{"Etag": {want}, "Content-Type": {"application/octet-stream"}}
	return s.stored(ctx, r, want, int64(len(data)))
}

// segments begins the names of an object's segments.
func (s *Store) segments(name string) string { return s.o.Prefix + reserved + "/" + name + "/" }

// Delete implements backend.Store.
func (s *Store) Delete(ctx context.Context, name string) error {
	if err := s.start(ctx, name); err != nil {
		return err
	}
	r := s.object("DELETE object", http.MethodDelete, name)
	if s.o.SegmentBytes > 0 {
		return s.deleteLarge(ctx, r)
	}
	return s.remove(ctx, r)
}

func (s *Store) remove(ctx context.Context, r request) error {
	resp, err := s.do(ctx, r)
	if err == nil {
		drop(resp)
	}
	if errors.Is(err, backend.ErrNotExist) {
		return nil
	}
	return err
}

// deleteLarge deletes an object that may have segments: the manifest, then they (W5).
// Of an object that is gone it looks for segments that an earlier call left.
func (s *Store) deleteLarge(ctx context.Context, r request) error {
	look := r
	look.method = http.MethodHead
	resp, err := s.head(ctx, look)
	var names []string
	switch {
	case errors.Is(err, backend.ErrNotExist):
		names, err = s.leftSegments(ctx, r)
	case err == nil && isLarge(resp.Header):
		names, err = s.listSegments(ctx, r)
	}
	if err == nil {
		err = s.remove(ctx, r)
	}
	for _, name := range names {
		if err != nil {
			break
		}
		seg := r
		seg.op, seg.object = "DELETE segment of object", name
		err = s.remove(ctx, seg)
	}
	return err
}

// listSegments returns the segments that a manifest names, if they are the object's.
func (s *Store) listSegments(ctx context.Context, r request) ([]string, error) {
	r.op, r.method, r.query, r.header = "GET manifest of object", http.MethodGet, url.Values{"multipart-manifest": {"get"}}, newest
	resp, err := s.do(ctx, r)
	if errors.Is(err, backend.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	b, err := body(ctx, r, resp, maxManifestBytes)
	if err != nil {
		return nil, err
	}
	var entries []struct {
		Name string `json:"name"`
	}
	if err := json.Unmarshal(b, &entries); err != nil {
		return nil, wrong(r, resp, "a manifest that is none")
	}
	var names []string
	for _, e := range entries {
		name, ok := strings.CutPrefix(e.Name, "/"+r.container+"/")
		if !ok || !s.isSegment(name, r.name) {
			return nil, wrong(r, resp, "a manifest that names %.80q, which is no segment of the object", e.Name)
		}
		names = append(names, name)
	}
	return names, nil
}

// isSegment tells whether a name in a container is one that putLarge gives to segments
// of an object.
func (s *Store) isSegment(name, of string) bool {
	rest, ok := strings.CutPrefix(name, s.segments(of))
	dir, number, slash := strings.Cut(rest, "/")
	size, sum, dash := strings.Cut(dir, "-")
	return ok && slash && dash && madeOf(size, 1, 19, isHex) && madeOf(sum, 32, 32, isHex) && madeOf(number, 5, 5, isHex)
}

func isHex(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' }

// leftSegments looks for segments without a manifest.
func (s *Store) leftSegments(ctx context.Context, r request) ([]string, error) {
	page, err := s.page(ctx, r.container, s.segments(r.name), "", "", s.found.ListLimit)
	if errors.Is(err, remote.ErrNoContainer) {
		return nil, nil
	}
	var names []string
	for _, e := range page {
		if s.isSegment(e.Name, r.name) {
			names = append(names, e.Name)
		}
	}
	return names, err
}

// bulkMost bounds the names of one bulk request, to bound how long it takes.
const bulkMost = 1000

// maxBulkBytes bounds its answer: names and statuses, and spaces while it works.
const maxBulkBytes = 4 << 20

// DeleteAll deletes objects, absent ones too, in as few requests as the cluster
// allows. On an error some are deleted.
func (s *Store) DeleteAll(ctx context.Context, names []string) error {
	for _, name := range names {
		if err := s.start(ctx, name); err != nil {
			return err
		}
	}
	if s.found.BulkDelete == 0 || s.o.SegmentBytes > 0 {
		for _, name := range names {
			if err := s.Delete(ctx, name); err != nil {
				return err
			}
		}
		return nil
	}
	for len(names) > 0 {
		n := min(len(names), s.found.BulkDelete, bulkMost)
		if err := s.bulkDelete(ctx, names[:n]); err != nil {
			return err
		}
		names = names[n:]
	}
	return nil
}

func (s *Store) bulkDelete(ctx context.Context, names []string) error {
	var list bytes.Buffer
	for _, name := range names {
		fmt.Fprintf(&list, "%s/%s%s\n", s.containerOf(name), s.o.Prefix, name)
	}
	r := request{
		op: "DELETE in bulk", name: fmt.Sprintf("%s and %d more", names[0], len(names)-1), method: http.MethodPost,
		query: url.Values{"bulk-delete": {"true"}}, body: list.Bytes(),
		header: http.Header{"Content-Type": {"text/plain"}, "Accept": {"application/json"}},
	}
	resp, err := s.do(ctx, r)
	if err != nil {
		return err
	}
	b, err := body(ctx, r, resp, maxBulkBytes)
	if err != nil {
		return err
	}
	var answer struct {
		Status string     `json:"Response Status"`
		Body   string     `json:"Response Body"`
		Errors [][]string `json:"Errors"`
	}
	if err := json.Unmarshal(b, &answer); err != nil {
		return wrong(r, resp, "an answer that is no JSON")
	}
	if len(answer.Errors) == 0 && strings.HasPrefix(answer.Status, "2") {
		return nil
	}
	// The whole can fail for one object: its status tells more.
	status := answer.Status
	if len(answer.Errors) > 0 && len(answer.Errors[0]) == 2 {
		status = answer.Errors[0][1]
	}
	e := &remote.Error{Op: r.op, Name: r.name, RequestID: requestID(resp.Header), Message: message([]byte(answer.Body), s.o.secrets()...)}
	if _, err := fmt.Sscanf(status, "%d", &e.Status); err != nil {
		return wrong(r, resp, "an answer without a status")
	}
	e.Kind = kind(e.Status, 0, e.Message)
	return e
}
