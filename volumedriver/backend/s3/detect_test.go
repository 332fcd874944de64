package s3

import (
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/backendtest"
)

// fake is a store in memory that lacks what its fields say. Without any it passes the
// conformance suite.
type fake struct {
	noConditions, pretendConditions   bool // ignores If-None-Match; refuses, and replaces
	noChecksums, blindChecksums       bool // ignores CRC32C; confirms whatever it is told
	noMD5, otherETag, noSigned        bool
	noRanges, noDelete, noList        bool
	versioning, lifecycle, lock, deny string // bodies; what is denied

	mu      sync.Mutex
	objects map[string][]byte
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, "<Error><Code>%s</Code></Error>", code)
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.objects == nil {
		f.objects = map[string][]byte{}
	}
	_, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	q := r.URL.Query()
	data, there := f.objects[key]
	for what, body := range map[string]string{"versioning": f.versioning, "lifecycle": f.lifecycle, "object-lock": f.lock} {
		if q.Has(what) && f.deny == what {
			refuse(w, 403, "AccessDenied")
			return
		} else if q.Has(what) && body == "" {
			refuse(w, 404, "NoSuchConfiguration")
			return
		} else if q.Has(what) {
			_, _ = io.WriteString(w, body)
			return
		}
	}
	switch {
	case q.Has("list-type"):
		f.list(w, q.Get("prefix"), max(q.Get("start-after"), q.Get("continuation-token")), q.Get("max-keys"))
	case r.Method == http.MethodPut:
		f.put(w, r, key, there)
	case r.Method == http.MethodDelete:
		if !f.noDelete {
			delete(f.objects, key)
		}
		w.WriteHeader(204)
	case key == "": // HEAD bucket
	case !there:
		refuse(w, 404, "NoSuchKey")
	default:
		f.get(w, r, data)
	}
}

func (f *fake) put(w http.ResponseWriter, r *http.Request, key string, there bool) {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	if r.Header.Get("X-Amz-Content-Sha256") != "UNSIGNED-PAYLOAD" && f.noSigned {
		refuse(w, 501, "NotImplemented")
		return
	}
	h := md5.Sum(data)
	sum := newSums(data, false)
	if got := r.Header.Get("Content-Md5"); got != "" && got != sum.md5 && !f.noMD5 {
		refuse(w, 400, "BadDigest")
		return
	}
	if got := r.Header.Get(crcHeader); got != "" && !f.noChecksums {
		if got != crcText(crc32.Checksum(data, castagnoli)) && !f.blindChecksums {
			refuse(w, 400, "BadDigest")
			return
		}
		w.Header().Set(crcHeader, got)
	}
	if r.Header.Get("If-None-Match") == "*" && there && !f.noConditions {
		if f.pretendConditions {
			f.objects[key] = data
		}
		refuse(w, 412, "PreconditionFailed")
		return
	}
	f.objects[key] = data
	if f.otherETag {
		h[0]++
	}
	w.Header().Set("ETag", `"`+hex.EncodeToString(h[:])+`"`)
}

func (f *fake) get(w http.ResponseWriter, r *http.Request, data []byte) {
	w.Header().Set("ETag", `"x"`)
	w.Header().Set("Last-Modified", "Fri, 02 Jan 2026 03:04:05 GMT")
	first, last, _, ranged := contentRange(strings.Replace(r.Header.Get("Range"), "=", " ", 1) + "/*")
	status := 200
	if ranged && !f.noRanges {
		if first >= int64(len(data)) {
			refuse(w, 416, "InvalidRange")
			return
		}
		last = min(last, int64(len(data))-1)
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, len(data)))
		data, status = data[first:last+1], 206
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	w.WriteHeader(status)
	if r.Method == http.MethodGet {
		_, _ = w.Write(data)
	}
}

func (f *fake) list(w http.ResponseWriter, prefix, after, page string) {
	n, err := strconv.Atoi(page)
	if err != nil {
		refuse(w, 400, "InvalidArgument")
		return
	}
	var b strings.Builder
	last := ""
	for _, key := range slices.Sorted(maps.Keys(f.objects)) {
		if !strings.HasPrefix(key, prefix) || key <= after || f.noList {
			continue
		}
		if n--; n < 0 {
			fmt.Fprintf(&b, "<IsTruncated>true</IsTruncated><NextContinuationToken>%s</NextContinuationToken>", last)
			break
		}
		fmt.Fprintf(&b, "<Contents><Key>%s</Key><Size>%d</Size></Contents>", key, len(f.objects[key]))
		last = key
	}
	_, _ = io.WriteString(w, "<ListBucketResult>"+b.String()+"</ListBucketResult>")
}

func fakeOptions(t *testing.T, f *fake) Options {
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	return Options{Endpoint: srv.URL, Region: "us-east-1", Bucket: "bucket", Prefix: "in/it", AccessKey: "a", SecretKey: "s"}
}

func TestFake(t *testing.T) {
	backendtest.Run(t, backendtest.Options{New: func(t *testing.T) backend.Store {
		o := fakeOptions(t, &fake{})
		o.Found = Found{ConditionalPut: true, Checksums: true, ETagMD5: true, ConsistentList: true}
		s, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}})
}

func TestDetect(t *testing.T) {
	all := Found{ConditionalPut: true, Checksums: true, ETagMD5: true, Region: "us-east-1"}
	without := func(f func(*Found)) Found { c := all; f(&c); return c }
	rule := func(prefix, status, does string) string {
		return "<LifecycleConfiguration><Rule><ID>tidy</ID><Status>" + status + "</Status><Filter><Prefix>" + prefix + "</Prefix></Filter>" + does + "</Rule></LifecycleConfiguration>"
	}
	expire := "<Expiration><Days>30</Days></Expiration>"
	for _, tc := range []struct {
		name string
		f    *fake
		want Found
		warn string // what the only warning holds; empty: there is none
	}{
		{"everything", &fake{}, all, ""},
		{"no conditions", &fake{noConditions: true}, without(func(f *Found) { f.ConditionalPut = false }), ""},
		{"conditions that replace", &fake{pretendConditions: true}, without(func(f *Found) { f.ConditionalPut = false }), ""},
		{"no CRC", &fake{noChecksums: true}, without(func(f *Found) { f.Checksums = false }), ""},
		{"blind CRC", &fake{blindChecksums: true}, without(func(f *Found) { f.Checksums = false }), ""},
		{"other ETags", &fake{otherETag: true}, without(func(f *Found) { f.ETagMD5 = false }), ""},
		{"no MD5", &fake{noMD5: true}, all, "Content-MD5"},
		{"no signed bodies", &fake{noSigned: true}, without(func(f *Found) { f.Unsigned = true }), ""},
		{"late lists", &fake{noList: true}, all, "list does not show"},
		{"versions", &fake{versioning: "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"}, all, "old versions"},
		{"secret versions", &fake{deny: "versioning"}, all, "may not read"},
		{"versions suspended", &fake{versioning: "<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>"}, all, ""},
		{"lock", &fake{lock: "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled></ObjectLockConfiguration>"}, all, "object lock"},
		{"expiry of all", &fake{lifecycle: rule("", "Enabled", expire)}, all, "data will be lost"},
		{"expiry of more", &fake{lifecycle: rule("in", "Enabled", expire)}, all, "data will be lost"},
		{"expiry of a part", &fake{lifecycle: rule("in/it/v/", "Enabled", expire)}, all, "data will be lost"},
		{"expiry of others", &fake{lifecycle: rule("out/", "Enabled", expire)}, all, ""},
		{"expiry disabled", &fake{lifecycle: rule("", "Disabled", expire)}, all, ""},
		{"archive", &fake{lifecycle: rule("", "Enabled", "<Transition><Days>1</Days><StorageClass>GLACIER</StorageClass></Transition>")}, all, "GLACIER"},
		{"uploads", &fake{lifecycle: rule("", "Enabled", "<AbortIncompleteMultipartUpload><DaysAfterInitiation>1</DaysAfterInitiation></AbortIncompleteMultipartUpload>")}, all, ""},
		{"a list for the lock", &fake{lock: `<?xml version="1.0"?><ListBucketResult><Name>b</Name></ListBucketResult>`}, all, ""},
		{"secret rules", &fake{deny: "lifecycle"}, all, "life cycle"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			found, warnings, err := Detect(t.Context(), fakeOptions(t, tc.f))
			if err != nil {
				t.Fatal(err)
			}
			if found != tc.want {
				t.Errorf("found %+v, want %+v", found, tc.want)
			}
			if tc.warn == "" && len(warnings) > 0 || tc.warn != "" && (len(warnings) != 1 || !strings.Contains(warnings[0], tc.warn)) {
				t.Errorf("warnings %q, want one with %q", warnings, tc.warn)
			}
			if len(tc.f.objects) > 0 {
				t.Errorf("left behind: %d objects", len(tc.f.objects))
			}
		})
	}
}

// A store without ranges, and one that cannot be reached, give no Found.
func TestDetectRefuses(t *testing.T) {
	f := &fake{noRanges: true}
	_, _, err := Detect(t.Context(), fakeOptions(t, f))
	if !errors.Is(err, backend.ErrUnsupported) || len(f.objects) > 0 {
		t.Errorf("error %v, %d objects left", err, len(f.objects))
	}
	o := fakeOptions(t, f)
	o.Endpoint = "http://127.0.0.1:1"
	if _, _, err := Detect(t.Context(), o); err == nil {
		t.Error("nobody listens, and no error")
	}
}
