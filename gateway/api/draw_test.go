package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"

	"github.com/getkin/kin-openapi/openapi3"
)

// world is what is known of the objects of a node, by the name of the path parameter that means
// one. Answers fill it.
type world struct {
	mu    sync.Mutex
	known map[string][]string
	keys  []string // Idempotency-Keys that were used
	pages []string // cursors that lists gave
}

// mostKnown bounds the objects of a kind: new ones take the place of the oldest.
const mostKnown = 24

func push(list []string, v string) []string {
	if v == "" || slices.Contains(list, v) {
		return list
	}
	if len(list) >= mostKnown {
		list = list[1:]
	}
	return append(list, v)
}

// naming are the fields by which answers name objects.
var naming = []string{"id", "name", "iqn", "number"}

// learn takes the objects out of an answer: of PATH those that PATH/{param} means.
func (w *world) learn(ops map[string]operation, op operation, a answer) {
	if a.status < 200 || a.status > 299 || !strings.HasPrefix(a.header.Get("Content-Type"), "application/json") {
		return
	}
	var v map[string]any
	if json.Unmarshal(a.body, &v) != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if next, ok := v["next"].(string); ok {
		w.pages = push(w.pages, next)
	}
	kind := ""
	for _, o := range ops {
		if rest, ok := strings.CutPrefix(o.path, op.path+"/{"); ok && strings.HasSuffix(rest, "}") {
			kind = strings.TrimSuffix(rest, "}")
		}
	}
	if op.id == "BeginExport" {
		kind = "transfer"
	}
	if kind == "" {
		return
	}
	objects := []any{v}
	if items, ok := v["items"].([]any); ok {
		objects = items
	}
	for _, o := range objects {
		m, _ := o.(map[string]any)
		if b, _ := m["backend"].(map[string]any); b["kind"] == "alba" {
			continue // the requests take its devices away, and what is on it waits for them then
		}
		if inner, ok := m["token"].(map[string]any); ok {
			m = inner
		}
		for _, f := range naming {
			switch id := m[f].(type) {
			case string:
				w.known[kind] = push(w.known[kind], id)
			case float64:
				w.known[kind] = push(w.known[kind], strconv.FormatFloat(id, 'f', -1, 64))
			}
		}
	}
}

// drawer makes requests out of the document. What it draws is by its generator alone, and by what
// the node answered before.
type drawer struct {
	rng *rand.Rand
	w   *world
	ops map[string]operation
	dir string // where paths of the machine may be
}

func (d *drawer) one(from ...string) string { return from[d.rng.IntN(len(from))] }
func (d *drawer) in(n int) bool             { return d.rng.IntN(n) == 0 }

func (d *drawer) object(kind string) string {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	if l := d.w.known[kind]; len(l) > 0 {
		return l[d.rng.IntN(len(l))]
	}
	return "none"
}

// places are the fields that name a place: another machine, or a path of this one. Tests stay on
// loopback, where nobody listens at port 1, and in directories of their own; what is no address at
// all may be drawn, too.
var places = map[string]func(d *drawer) any{
	"url": func(d *drawer) any {
		return d.one("http://127.0.0.1:1", "https://127.0.0.1:1/v3", "127.0.0.1:1", "http://", ":", "", "http://127.0.0.1:99999", "file:///", "http://[::1", "\x00")
	},
	"secretUrl": func(d *drawer) any {
		return d.one("https://127.0.0.1:1/x", "http://127.0.0.1:1", "https://", "", "javascript:0", "https://127.0.0.1:0/")
	},
	"proxy": func(d *drawer) any { return d.one("http://127.0.0.1:1", "", "http://127.0.0.1:x", "::") },
	"host":  func(d *drawer) any { return d.one("127.0.0.1", "", "127.0.0.1:1", "[::1]", " ") },
	"port":  func(d *drawer) any { return []any{1, 0, -1, 65536, 2.5}[d.rng.IntN(5)] },
	"address": func(d *drawer) any {
		return d.one("127.0.0.1:1", "127.0.0.1", ":", "127.0.0.1:0", "", "127.0.0.1:70000")
	},
	"endpoint":    func(d *drawer) any { return d.one("public", "internal", "admin", "", "other") },
	"urls":        func(d *drawer) any { return []any{d.one("https://127.0.0.1:1", "", "x", "http://127.0.0.1:1/y")} },
	"path":        func(d *drawer) any { return d.place() },
	"directory":   func(d *drawer) any { return d.place() },
	"iam":         func(*drawer) any { return false }, // it asks a well-known address of clouds for keys
	"region":      func(d *drawer) any { return d.one("", "r1", "\n") },
	"certificate": func(d *drawer) any { return d.one("", "x") },
}

func (d *drawer) place() string {
	return d.one("", "relative", "../up", "/", "/proc/self/mem/x", "/dev/null/x", "\x00", filepath.Join(d.dir, "p"+strconv.Itoa(d.rng.IntN(8))), filepath.Join(d.dir, strings.Repeat("n", 300)), d.dir+"/a/../b")
}

// alike are the path parameters whose objects fields of another name mean.
var alike = map[string]string{"vdisks": "vdisk", "parent": "vdisk", "target": "iqn", "initiators": "initiator", "addInitiators": "initiator", "removeInitiators": "initiator", "store": "backend", "osds": "osd"}

// value draws what a schema allows, of a field with this name.
func (d *drawer) value(name string, s *openapi3.Schema, depth int) any {
	if f, ok := places[name]; ok {
		return f(d)
	}
	if depth > 8 {
		return nil
	}
	kind := name
	if k, ok := alike[name]; ok {
		kind = k
	}
	for _, part := range s.AllOf {
		return d.value(name, part.Value, depth)
	}
	switch {
	case len(s.Enum) > 0:
		return s.Enum[d.rng.IntN(len(s.Enum))]
	case s.Type.Is("object"):
		return d.fields(s, depth)
	case s.Type.Is("array"):
		n := int(s.MinItems) + d.rng.IntN(3)
		out := make([]any, 0, n)
		for range n {
			out = append(out, d.value(name, s.Items.Value, depth+1))
		}
		return out
	case s.Type.Is("boolean"):
		return d.in(2)
	case s.Type.Is("integer"), s.Type.Is("number"):
		return d.number(name, s)
	case s.Format == "date-time":
		return d.one("2026-01-01T00:00:00Z", "2100-01-01T00:00:00+02:00", "1970-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z", "0000-01-01T00:00:00Z")
	}
	d.w.mu.Lock()
	_, ok := d.w.known[kind]
	d.w.mu.Unlock()
	if ok && name != "name" && !d.in(8) {
		return d.object(kind)
	}
	switch name {
	case "initiator", "initiators":
		return fmt.Sprintf("iqn.2004-10.com.ubuntu:01:%d", d.rng.IntN(9))
	case "cron":
		return d.one("@daily", "0 3 * * *", "*/5 * * * 1-5", "60 * * * *", "* * * *", "0 0 31 2 *")
	case "zone":
		return d.one("", "UTC", "Europe/Brussels", "Nowhere/X", "../../etc/passwd")
	case "policies":
		return d.one("1,1,2,6", "2,2,3,6", "4,2,5,6", "0,0,0,0", "1,1", "99,99,99,99", "-1,1,1,1")
	case "compression":
		return d.one("none", "snappy", "s2", "zstd", "bz2", "rar")
	case "job":
		return d.one("snapshot", "retention", "scrub", "none")
	case "code", "codes":
		return d.one("x_*", "read_cache", "*")
	}
	text := fmt.Sprintf("n%d", d.rng.IntN(20))
	for uint64(len(text)) < s.MinLength {
		text += "x"
	}
	return text
}

// fields draws an object: what is required and some of the rest.
func (d *drawer) fields(s *openapi3.Schema, depth int) map[string]any {
	out := map[string]any{}
	names := make([]string, 0, len(s.Properties))
	for n := range s.Properties {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		if slices.Contains(s.Required, n) || d.in(3) {
			out[n] = d.value(n, s.Properties[n].Value, depth+1)
		}
	}
	if more := s.AdditionalProperties.Schema; more != nil {
		for range d.rng.IntN(3) {
			out[fmt.Sprintf("k%d", d.rng.IntN(5))] = d.value("", more.Value, depth+1)
		}
	}
	return out
}

func (d *drawer) number(name string, s *openapi3.Schema) any {
	if name == "osd" || name == "osds" {
		if n, err := strconv.Atoi(d.object("osd")); err == nil {
			return n
		}
	}
	least, most := 0.0, 1<<30
	if s.Min != nil {
		least = *s.Min
	}
	if s.Max != nil {
		most = int(*s.Max)
	}
	switch d.rng.IntN(4) {
	case 0:
		return int64(least)
	case 1:
		return int64(least) + int64(d.rng.IntN(16))
	case 2:
		return min(int64(1)<<d.rng.IntN(30), int64(most))
	}
	return min(int64(4096*(1+d.rng.IntN(512))), int64(most))
}

// request draws a request of an operation that the document allows, and in two of three cases
// then does something to it that it may not.
func (d *drawer) request(op operation, token string) request {
	r := request{method: op.method, header: bearer(token), client: d.rng.IntN(2)}
	path, query := map[string]string{}, url.Values{}
	for _, p := range op.params {
		v := p.Value
		switch v.In {
		case "path":
			path[v.Name] = d.parameter(v)
		case "query":
			if v.Required || d.in(3) {
				query.Set(v.Name, d.parameter(v))
			}
		case "header":
			if v.Name == "Idempotency-Key" && d.in(3) {
				r.header.Set(v.Name, d.key())
			} else if v.Name != "Idempotency-Key" && d.in(3) {
				r.header.Set(v.Name, d.one("1", "x", "18446744073709551615", ""))
			}
		}
	}
	var body any
	kind := ""
	if b := op.doc.RequestBody; b != nil {
		if m := b.Value.Content.Get("application/json"); m != nil && (b.Value.Required || !d.in(3)) {
			body, kind = d.value("", m.Schema.Value, 0), "application/json"
		}
		if b.Value.Content.Get("application/octet-stream") != nil {
			r.body, kind = make([]byte, 512*d.rng.IntN(64)), "application/octet-stream"
		}
	}
	if d.in(3) {
		kind = d.spoil(&r, path, query, &body, kind)
	}
	if r.body == nil && body != nil {
		if m, ok := body.(map[string]any); ok {
			notOnAlba(m)
		}
		r.body, _ = json.Marshal(body)                         // what was drawn is of JSON's own types
		if d.in(6) && !bytes.Contains(r.body, []byte(d.dir)) { // no directory elsewhere on this machine
			r.body = d.mangle(r.body)
		}
	}
	if r.body != nil && kind != "" {
		r.header.Set("Content-Type", kind)
	}
	if r.path == "" {
		r.path = fill(op.path, path)
	}
	if r.query == "" {
		r.query = query.Encode()
	}
	return r
}

// notOnAlba lets a vPool on the object store be refused, whose devices other requests take away.
func notOnAlba(body map[string]any) {
	if b, ok := body["backend"].(map[string]any); ok && b["kind"] == "alba" {
		b["preset"] = "nosuch"
	}
}

func (d *drawer) parameter(p *openapi3.Parameter) string {
	switch p.Name {
	case "cursor":
		d.w.mu.Lock()
		defer d.w.mu.Unlock()
		if n := len(d.w.pages); n > 0 {
			return d.w.pages[d.rng.IntN(n)]
		}
		return ""
	case "sort":
		return d.one("name", "-name", "created", "-size", "stored", "-stored", "writeIops", "taken", "nothing")
	case "topics":
		return d.one("", "vdisk", "metrics,vdisk", "weather")
	case "operation":
		return d.one("CreateVDisk", "None")
	case "sampleMs":
		return d.one("0", "1", "20")
	}
	return fmt.Sprint(d.value(p.Name, p.Schema.Value, 1))
}

func (d *drawer) key() string {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	if n := len(d.w.keys); n > 0 && d.in(2) {
		return d.w.keys[d.rng.IntN(n)]
	}
	k := fmt.Sprintf("key-%d", d.rng.Uint32())
	d.w.keys = push(d.w.keys, k)
	return k
}

// bad are texts that something may stumble over.
func (d *drawer) bad() string {
	return d.one("", " ", "\x00", "a\x00b", "\n", "a\r\nX-Injected: 1", "..", "../../../../etc/passwd", "%", "%00", "%2e%2e%2f", "%s%n%d", "'; DROP TABLE vdisks; --",
		"\u202egnp", "\ufeff", "\U0001f4be", "e\u0301\u0301\u0301", "ﬀİı", "NaN", "null", "true", "-1", "0x10", "1e400", "9223372036854775808", "{}", "[]", "<script>", "*", "/", "\\", "~", ".", "-", "--", "con",
		strings.Repeat("a", 65), strings.Repeat("x", 256), strings.Repeat("y", 5000), strings.Repeat("\u20ac", 300), string([]byte{0xff, 0xfe, 0x80}))
}

// badValue is something of any type.
func (d *drawer) badValue() any {
	return []any{nil, true, -1, 0, 1, math.MaxInt64, int64(math.MinInt64), json.Number("9223372036854775808"), json.Number("1e400"), json.Number("-0"), 0.5, 1e300, json.Number("1e2"),
		[]any{}, map[string]any{}, []any{nil}, map[string]any{"": nil}, d.bad(), d.bad(), d.bad()}[d.rng.IntN(20)]
}

// spoil does one thing to a request that it may not, and returns the content type to be sent.
func (d *drawer) spoil(r *request, path map[string]string, query url.Values, body *any, kind string) string {
	switch n := d.rng.IntN(10); {
	case n < 4 && *body != nil: // a field
		if m, ok := (*body).(map[string]any); ok {
			d.spoilField(m)
		} else {
			*body = d.badValue()
		}
	case n < 6 && len(path) > 0: // what the path names
		for _, k := range sorted(path) {
			path[k] = d.bad()
			if path[k] == "" || path[k] == "." || path[k] == ".." {
				path[k] = "none"
			}
		}
		if d.in(4) {
			r.path = strings.Repeat("/x", 1+d.rng.IntN(20))
		}
	case n < 8: // the query
		names := append(sorted(query), "limit", "cursor", "q", "unknown", "offset", "force", "since")
		k := names[d.rng.IntN(len(names))]
		query[k] = append(query[k], d.bad())
		if d.in(6) {
			r.query = d.one("&&&", "=", "limit=%zz", "limit=1&limit=2", ";", "q="+strings.Repeat("q", 8000), "a[]=1&a[]=2", "%00=%00")
		}
	case n == 8: // headers
		switch d.rng.IntN(6) {
		case 0:
			return d.one("text/plain", "", "application/xml", "application/json; charset=utf-16", "multipart/form-data", "*/*", "application/json;;;")
		case 1:
			r.header.Set("Idempotency-Key", d.one("", strings.Repeat("k", 128), strings.Repeat("k", 129), "\u20ac", " "))
		case 2:
			r.header.Set("If-Match", d.one(`"x"`, "*", `W/"0"`, "x", ""))
		case 3:
			r.header.Set("Content-Encoding", "gzip")
		case 4:
			r.header.Set("Range", d.one("bytes=0-", "bytes=9-1", "x"))
		case 5:
			r.header.Set("Authorization", d.one("", "Bearer", "Bearer ", "Basic x", "Bearer "+strings.Repeat("t", 9000)))
		}
	default:
		switch d.rng.IntN(3) {
		case 0:
			r.method = d.one(http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodHead, http.MethodOptions, "PROPFIND")
		case 1:
			*body, r.body = nil, nil
		case 2:
			r.body, kind = d.text(), "application/json"
		}
	}
	return kind
}

// text is a body that is no object of the document.
func (d *drawer) text() []byte {
	switch d.rng.IntN(8) {
	case 0:
		return []byte(strings.Repeat("[", 100_000))
	case 1:
		return []byte(strings.Repeat(`{"a":`, 20_000) + "1" + strings.Repeat("}", 20_000))
	case 2:
		return bytes.Repeat([]byte(" "), 1<<20+1)
	case 3:
		return []byte(`{"name":"a","name":"b"}`)
	case 4:
		return []byte("{}{}")
	case 5:
		return []byte("\xef\xbb\xbf{}")
	case 6:
		return []byte(`{"name":"` + strings.Repeat("x", 300_000) + `"}`)
	}
	return []byte(d.bad())
}

// spoilField changes a field somewhere in an object, leaves one out or adds one. Places stay on
// the machine.
func (d *drawer) spoilField(m map[string]any) {
	names := sorted(m)
	if len(names) == 0 || d.in(6) {
		m[d.one("unknown", "", "__proto__", "Name", "\x00")] = d.badValue()
		return
	}
	k := names[d.rng.IntN(len(names))]
	if inner, ok := m[k].(map[string]any); ok && !d.in(3) {
		d.spoilField(inner)
		return
	}
	if d.in(4) {
		delete(m, k)
		return
	}
	if _, ok := places[k]; ok {
		m[k] = []any{nil, 1, true, []any{}, map[string]any{}}[d.rng.IntN(5)]
		return
	}
	m[k] = d.badValue()
}

// mangle cuts a body or changes a byte of it.
func (d *drawer) mangle(b []byte) []byte {
	if len(b) == 0 {
		return b
	}
	if d.in(2) {
		return b[:d.rng.IntN(len(b))]
	}
	b = bytes.Clone(b)
	// Not a letter for another one: that could make another address.
	b[d.rng.IntN(len(b))] = "\x00\xff{}[],:\""[d.rng.IntN(9)]
	return b
}

func sorted[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}
