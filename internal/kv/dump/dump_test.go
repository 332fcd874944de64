package dump_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/kv"
	"github.com/openvstorage/ovgate/internal/kv/dump"
	"github.com/openvstorage/ovgate/internal/kv/etcd/etcdtest"
	"github.com/openvstorage/ovgate/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

var header = dump.Header{
	Made: time.Unix(1_800_000_000, 0).UTC(), Version: "1.2.3",
	Cluster: dump.Identity{ID: "c", Name: "lab"}, Node: dump.Identity{ID: "n", Name: "one"},
}

// read returns all of a file, as lines.
func read(b []byte) ([]string, *dump.Reader, error) {
	r, err := dump.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, nil, err
	}
	var out []string
	for {
		rec, err := r.Next()
		if errors.Is(err, io.EOF) {
			_, err = r.Next() // it stays ended
			if !errors.Is(err, io.EOF) {
				return nil, nil, fmt.Errorf("after its end: %w", err)
			}
			return out, r, nil
		}
		if err != nil {
			return out, r, err
		}
		out = append(out, fmt.Sprintf("%s %q=%q", rec.Store, rec.Key, rec.Value))
	}
}

// TestRoundTrip: what a store holds, without what leases hold, comes back, from bbolt and
// etcd.
func TestRoundTrip(t *testing.T) {
	etcdtest.EachStore(t, func(t *testing.T, open func() kv.Store) {
		ctx, s := t.Context(), open()
		lease, err := s.Grant(ctx, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		res, err := s.Txn(ctx, nil, []kv.Op{
			kv.Put("a", []byte("1")), kv.Put("b/\xff", []byte{0, 255}), kv.Put("b/empty", nil), kv.Put("é", []byte("x")), kv.Put("z/not", []byte("y")),
			{Kind: kv.OpPut, Key: []byte("alive"), Value: []byte("no"), Lease: lease},
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		large := bytes.Repeat([]byte{7}, kv.MaxTxnBytes-100)
		if _, err := s.Txn(ctx, nil, []kv.Op{kv.Put("large", large)}, nil); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		keep := func(e kv.KV) bool { return !bytes.HasPrefix(e.Key, []byte("z/")) }
		if err := dump.Write(ctx, &b, header, dump.Source{Name: "registry", Store: s, Keep: keep}, dump.Source{Name: "again", Store: s, Keep: func(e kv.KV) bool { return string(e.Key) == "a" }}); err != nil {
			t.Fatal(err)
		}
		got, r, err := read(b.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		want := []string{`registry "a"="1"`, `registry "b/empty"=""`, `registry "b/\xff"="\x00\xff"`, fmt.Sprintf("registry \"large\"=%q", large), `registry "é"="x"`, `again "a"="1"`}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("got %.600q", got)
		}
		h := header
		h.Format = dump.Format
		if r.Header != h || r.Records != int64(len(want)) || len(r.Revisions) != 2 || r.Revisions["registry"] <= res.Rev || r.Revisions["again"] < r.Revisions["registry"] {
			t.Errorf("header %+v, %d records, revisions %v", r.Header, r.Records, r.Revisions)
		}
	})
}

// small returns a file, and its lines.
func small(t *testing.T) (file []byte, lines []string) {
	t.Helper()
	s, err := kv.OpenBolt(filepath.Join(t.TempDir(), "kv.db"), kv.BoltOptions{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i := range 20 {
		if _, err := s.Txn(t.Context(), nil, []kv.Op{kv.Put(fmt.Sprintf("key/%02d", i), fmt.Appendf(nil, "value %d", i))}, nil); err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	if err := dump.Write(t.Context(), &b, header, dump.Source{Name: "registry", Store: s}); err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(b.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), strings.SplitAfter(strings.TrimSuffix(string(text), "\n"), "\n")
}

func zipped(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestDamage: a file cut off anywhere, or with a byte that is another one, is never taken for
// a whole one.
func TestDamage(t *testing.T) {
	file, lines := small(t)
	good, _, err := read(file)
	if err != nil || len(good) != 20 {
		t.Fatalf("%d records, %v", len(good), err)
	}
	for n := range file {
		if _, _, err := read(file[:n]); !errors.Is(err, dump.ErrDamaged) {
			t.Fatalf("cut off after %d of %d bytes: %v", n, len(file), err)
		}
	}
	refused := 0
	for n := range file {
		for _, bit := range []byte{1, 0x80} {
			bad := bytes.Clone(file)
			bad[n] ^= bit
			got, r, err := read(bad)
			switch {
			case err != nil && (errors.Is(err, dump.ErrDamaged) || errors.Is(err, dump.ErrFormat)):
				refused++
			case err != nil:
				t.Fatalf("byte %d: %v", n, err)
			case strings.Join(got, "\n") != strings.Join(good, "\n") || r.Header.Cluster != header.Cluster:
				t.Fatalf("byte %d is another one, and the file is taken for whole", n)
			} // time or system in the head of gzip: nobody reads them
		}
	}
	if refused < len(file) {
		t.Errorf("%d of %d changed bits are refused", refused, 2*len(file))
	}
	if _, _, err := read(append(bytes.Clone(file), file...)); !errors.Is(err, dump.ErrDamaged) {
		t.Errorf("twice the same: %v", err)
	}

	// With gzip's own checksum right.
	whole := strings.Join(lines, "")
	for name, text := range map[string]string{
		"nothing":          "",
		"other":            "{\"hello\":1}\n",
		"no trailer":       strings.Join(lines[:len(lines)-1], ""),
		"a record less":    strings.Join(append(append([]string{}, lines[:5]...), lines[6:]...), ""),
		"a record twice":   strings.Join(append(append([]string{}, lines[:5]...), lines[4:]...), ""),
		"another value":    strings.Replace(whole, lines[4], lines[4][:len(lines[4])-4]+"A\"}\n", 1),
		"another cluster":  strings.Replace(whole, `"lab"`, `"bal"`, 1),
		"goes on":          whole + "\n{}\n",
		"order":            strings.Join(append(append([]string{}, lines[:4]...), lines[5], lines[4]), ""),
		"record of nobody": lines[0] + lines[2] + strings.Join(lines[1:], ""),
		"unknown":          lines[0] + "{\"x\":1}\n" + strings.Join(lines[1:], ""),
		"long line":        lines[0] + "{\"k\":\"" + strings.Repeat("a", 5<<20),
	} {
		if _, _, err := read(zipped(t, text)); !errors.Is(err, dump.ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	newer := strings.Replace(whole, `"ovgateMetadata":1`, `"ovgateMetadata":2`, 1)
	if _, _, err := read(zipped(t, newer)); !errors.Is(err, dump.ErrFormat) || !strings.Contains(err.Error(), "upgrade") {
		t.Errorf("newer format: %v", err)
	}
}

// TestGolden: files of this version are read for ever.
func TestGolden(t *testing.T) {
	got, r, err := read(golden)
	if err != nil {
		t.Fatal(err)
	}
	h := header
	h.Format = 1
	if want := []string{`registry "a/b"="{\"x\":1}"`, `registry "\xff"=""`, `nsm "k"="\x00"`}; strings.Join(got, "\n") != strings.Join(want, "\n") || r.Header != h || r.Revisions["registry"] != 7 || r.Revisions["nsm"] != 9 {
		t.Errorf("%q, %+v, %v", got, r.Header, r.Revisions)
	}
}

// FuzzReader: no input makes the reader fail otherwise than with its errors.
func FuzzReader(f *testing.F) {
	f.Add(golden)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, _, err := read(b); err != nil && !errors.Is(err, dump.ErrDamaged) && !errors.Is(err, dump.ErrFormat) {
			t.Error(err)
		}
	})
}

// golden is a file of format 1.
var golden = func() []byte {
	const text = `{"ovgateMetadata":1,"made":"2027-01-15T08:00:00Z","version":"1.2.3","cluster":{"id":"c","name":"lab"},"node":{"id":"n","name":"one"}}
{"store":"registry","revision":7}
{"k":"a/b","v":"eyJ4IjoxfQ=="}
{"kb":"/w=="}
{"store":"nsm","revision":9}
{"k":"k","v":"AA=="}
{"end":true,"records":3,"sha256":"SUM"}
`
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(strings.Replace(text, "SUM", goldenSum, 1))); err != nil || z.Close() != nil {
		panic("gzip into memory fails")
	}
	return b.Bytes()
}()

const goldenSum = "c5ad5f2210ce1ec2d9e8ef460803f4e775c0f3e610d63592e36a32940b682bf3"
