package layout

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/openvstorage/ovgate/alba/fragment"
	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/alba/preset"
)

// Golden files are read for ever. -golden makes the missing ones; it never changes
// one, since what it holds may be on somebody's devices.
var makeGolden = flag.Bool("golden", false, "make golden files that are missing")

func golden(t *testing.T, name string, content []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", name)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && *makeGolden {
		b = content
		err = os.WriteFile(path, b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var testObject = Object{0xab, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xef}

// index packs a shard of n bytes whose content depends on the seed alone.
func index(t testing.TB, n int, seed byte, comp fragment.Compression) fragment.Index {
	t.Helper()
	return indexIn(t, fragment.Piece64K, n, seed, comp)
}

func indexIn(t testing.TB, size fragment.PieceSize, n int, seed byte, comp fragment.Compression) fragment.Index {
	t.Helper()
	shard := bytes.Repeat([]byte{seed, seed / 3}, n/2+1)[:n]
	rand.NewChaCha8([32]byte{seed}).Read(shard[:n/2])
	_, x, err := fragment.Pack(nil, fragment.ID{Object: testObject}, shard, comp, size, nil)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// manifest makes one of size bytes, with fragments missing here and there.
func manifest(t testing.TB, size int64, p preset.Policy, chunkBytes int, encrypted bool) *Manifest {
	t.Helper()
	return manifestIn(t, fragment.Piece64K, size, p, chunkBytes, encrypted)
}

func manifestIn(t testing.TB, pieces fragment.PieceSize, size int64, p preset.Policy, chunkBytes int, encrypted bool) *Manifest {
	t.Helper()
	m := &Manifest{Header: Header{Name: "a/b c\x00é", Object: testObject, Size: size, CRC: 0xdeadbeef, Created: 1732000000123, Policy: p, ChunkBytes: chunkBytes, Compression: fragment.Snappy}}
	if encrypted {
		m.Key = [16]byte{1, 15: 2}
	}
	for i := range m.Chunks() {
		var chunk []Fragment
		for j := range p.N() {
			f := Fragment{Version: uint32(i*j) << 10, OSD: uint32(7*i + j)}
			if f.OSD != 0 {
				f.Epoch = uint64(j) << 33
				f.Index = indexIn(t, pieces, m.ShardBytes(i), byte(i+j), fragment.Snappy)
			}
			chunk = append(chunk, f)
		}
		m.Fragments = append(m.Fragments, chunk)
	}
	return m
}

func encode(t testing.TB, m *Manifest) []byte {
	t.Helper()
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestGolden(t *testing.T) {
	for name, m := range map[string]*Manifest{
		"manifest":           manifest(t, 300000, preset.Policy{K: 2, M: 1, C: 3, X: 1}, 128<<10, false),
		"manifest-encrypted": manifest(t, 10, preset.Policy{K: 1, M: 2, C: 2, X: 1}, 10, true),
		"manifest-empty":     manifest(t, 0, preset.Policy{K: 4, M: 2, C: 5, X: 2}, 1, false),
		"manifest-4KiB":      manifestIn(t, fragment.Piece4K, 50000, preset.Policy{K: 2, M: 1, C: 3, X: 1}, 32<<10, false),
	} {
		t.Run(name, func(t *testing.T) {
			b := golden(t, name+".bin", encode(t, m))
			if got := encode(t, m); !bytes.Equal(got, b) {
				t.Errorf("encoded differently now:\n%x\n%x", got, b)
			}
			back, err := DecodeManifest(b)
			if err != nil || !reflect.DeepEqual(back, m) {
				t.Errorf("%+v, %v, want %+v", back, err, m)
			}
			x := m.Fragments[0][1].Index
			rec, err := EncodeRecovery(m.Header, x)
			if err != nil {
				t.Fatal(err)
			}
			kept := golden(t, strings.Replace(name, "manifest", "recovery", 1)+".bin", rec)
			if !bytes.Equal(rec, kept) {
				t.Errorf("recovery record is encoded differently now:\n%x\n%x", rec, kept)
			}
			h, y, err := DecodeRecovery(kept)
			if err != nil || h != m.Header || !reflect.DeepEqual(x, y) {
				t.Errorf("recovery: %+v %+v, %v", h, y, err)
			}
		})
	}
}

// TestGoldenKeys holds every key and small record, a line each.
func TestGoldenKeys(t *testing.T) {
	p := Place{Namespace: 0x0102030405060708, Object: testObject, Chunk: 0x0a0b0c0d, Index: 17, Version: 0xfefdfcfb}
	inst, err := Instance{Cluster: "3f0e", OSD: 9}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	link, err := Link{ID: 12, Name: "ns-1", Preset: "default"}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, k := range []struct {
		name string
		key  []byte
	}{
		{"instance", InstanceKey()}, {"trial", TrialKey()}, {"namespace", NamespaceKey(p.Namespace)}, {"namespaces", NamespacesPrefix()},
		{"fragments", FragmentsPrefix(p.Namespace)}, {"tags", TagsPrefix(p.Namespace)}, {"after epoch 5", EpochAfter(p.Namespace, 5)},
		{"fragment", p.FragmentKey()}, {"tag in epoch 6", p.TagKey(6)},
	} {
		fmt.Fprintf(&b, "%s %x\n", k.name, k.key)
	}
	fmt.Fprintf(&b, "instance value %s\nlink value %s\n", inst, link)
	if want := golden(t, "keys.txt", []byte(b.String())); b.String() != string(want) {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
	if got, err := ParseFragmentKey(p.FragmentKey()); err != nil || got != p {
		t.Errorf("fragment key: %v, %v", got, err)
	}
	if got, epoch, err := ParseTagKey(p.TagKey(6)); err != nil || got != p || epoch != 6 {
		t.Errorf("tag key: %v %d, %v", got, epoch, err)
	}
	if got, err := ParseNamespaceKey(NamespaceKey(3)); err != nil || got != 3 {
		t.Errorf("namespace key: %d, %v", got, err)
	}
	if got, err := DecodeInstance(inst); err != nil || got.OSD != 9 {
		t.Errorf("instance: %+v, %v", got, err)
	}
	if got, err := DecodeLink(link); err != nil || got.ID != 12 {
		t.Errorf("link: %+v, %v", got, err)
	}
	if _, err := DecodeLink([]byte("removing")); !errors.Is(err, ErrFormat) {
		t.Errorf("a namespace that is being removed: %v", err)
	}
}

// Keys sort as the walks over them need: by object within a namespace, and by epoch first for tags.
func TestKeyOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	random := func() (Place, uint64) {
		p := Place{Namespace: r.Uint64N(3), Chunk: r.Uint32N(3) << 15, Index: uint8(r.UintN(3)), Version: r.Uint32N(3) << 8}
		p.Object[r.IntN(16)] = byte(r.UintN(3))
		return p, r.Uint64N(3) << 30
	}
	order := func(p Place) []byte {
		b := binary.BigEndian.AppendUint64(nil, p.Namespace)
		return p.append(b)
	}
	for range 2000 {
		a, ea := random()
		b, eb := random()
		if bytes.Compare(a.FragmentKey(), b.FragmentKey()) != bytes.Compare(order(a), order(b)) {
			t.Fatalf("fragment keys of %v and %v", a, b)
		}
		want := bytes.Compare(order(a), order(b))
		if a.Namespace == b.Namespace && ea != eb {
			want = 1
			if ea < eb {
				want = -1
			}
		}
		if bytes.Compare(a.TagKey(ea), b.TagKey(eb)) != want {
			t.Fatalf("tags of %v in %d and %v in %d", a, ea, b, eb)
		}
		if a.Namespace == b.Namespace && (bytes.Compare(a.TagKey(ea), EpochAfter(b.Namespace, eb)) > 0) != (ea > eb) {
			t.Fatalf("epoch %d after %d", ea, eb)
		}
	}
}

// Whatever can be encoded decodes to the same.
func TestRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		p := preset.Policy{K: 1 + r.IntN(8), M: r.IntN(5), X: 1 + r.IntN(4)}
		p.C = p.K + r.IntN(p.M+1)
		m := &Manifest{Header: Header{Name: strings.Repeat("n", 1+r.IntN(MaxName)), Object: testObject, Size: r.Int64N(40000), CRC: r.Uint32(), Created: r.Int64(), Policy: p,
			ChunkBytes: 1 + r.IntN(20000), Compression: fragment.Compression(r.IntN(5))}}
		pieces := fragment.PieceSize(r.IntN(3))
		if m.Chunks() > 50 {
			continue
		}
		if r.IntN(2) == 0 {
			m.Key[r.IntN(16)] = 9
		}
		for i := range m.Chunks() {
			chunk := make([]Fragment, p.N())
			for j := range chunk {
				chunk[j].Version = r.Uint32()
				if r.IntN(3) > 0 {
					chunk[j].OSD, chunk[j].Epoch = r.Uint32(), r.Uint64()
					chunk[j].Index = indexIn(t, pieces, m.ShardBytes(i), byte(j), m.Compression)
				}
			}
			m.Fragments = append(m.Fragments, chunk)
		}
		back, err := DecodeManifest(encode(t, m))
		if err != nil || !reflect.DeepEqual(back, m) {
			t.Fatalf("%+v, %v, want %+v", back, err, m)
		}
		var stored int64
		missing := 0
		for _, chunk := range m.Clone().Fragments {
			n := 0
			for _, f := range chunk {
				if f.OSD == 0 {
					n++
				} else {
					stored += f.Index.StoredBytes()
				}
			}
			missing = max(missing, n)
		}
		if m.Stored() != stored || m.Missing() != missing {
			t.Fatalf("stored %d, missing %d, want %d and %d", m.Stored(), m.Missing(), stored, missing)
		}
	}
}

// Every byte that is not the one that was written is noticed, and every cut.
func TestDamage(t *testing.T) {
	m := manifest(t, 100000, preset.Policy{K: 2, M: 1, C: 3, X: 1}, 64<<10, true)
	rec, err := EncodeRecovery(m.Header, m.Fragments[0][1].Index)
	if err != nil {
		t.Fatal(err)
	}
	for what, b := range map[string][]byte{"manifest": encode(t, m), "recovery": rec} {
		decode := func(b []byte) error {
			if what == "manifest" {
				_, err := DecodeManifest(b)
				return err
			}
			_, _, err := DecodeRecovery(b)
			return err
		}
		if err := decode(b); err != nil {
			t.Fatal(err)
		}
		for i := range b {
			for _, flip := range []byte{1, 0x80, 0xff} {
				b[i] ^= flip
				if err := decode(b); !errors.Is(err, ErrFormat) {
					t.Fatalf("%s with byte %d changed: %v", what, i, err)
				}
				b[i] ^= flip
			}
			if err := decode(b[:i]); !errors.Is(err, ErrFormat) {
				t.Fatalf("%s of %d bytes: %v", what, i, err)
			}
		}
		if err := decode(append(bytes.Clone(b), 0)); !errors.Is(err, ErrFormat) {
			t.Fatalf("%s with a byte more: %v", what, err)
		}
	}
}

// What could not be read again is not written: a manifest that nobody can decode
// hides the whole listing it is in.
func TestRefused(t *testing.T) {
	policy := preset.Policy{K: 2, M: 1, C: 3, X: 1}
	for name, change := range map[string]func(m *Manifest){
		"no name":             func(m *Manifest) { m.Name = "" },
		"long name":           func(m *Manifest) { m.Name = strings.Repeat("x", MaxName+1) },
		"too large":           func(m *Manifest) { m.Size = MaxObjectBytes + 1 },
		"negative size":       func(m *Manifest) { m.Size = -1 },
		"no chunk size":       func(m *Manifest) { m.ChunkBytes = 0 },
		"too many chunks":     func(m *Manifest) { m.Size, m.ChunkBytes = MaxObjectBytes, 1000 },
		"chunk size":          func(m *Manifest) { m.ChunkBytes = 1 << 40 },
		"no policy":           func(m *Manifest) { m.Policy.K = 0 },
		"compression":         func(m *Manifest) { m.Compression = 99 },
		"created before 1970": func(m *Manifest) { m.Created = -1 },
		"a chunk less":        func(m *Manifest) { m.Fragments = m.Fragments[1:] },
		"a fragment less":     func(m *Manifest) { m.Fragments[1] = m.Fragments[1][1:] },
		"no index":            func(m *Manifest) { m.Fragments[1][1].Index = fragment.Index{} },
		"pieces of two sizes": func(m *Manifest) {
			m.Fragments[1][1].Index = indexIn(t, fragment.Piece4K, m.ShardBytes(1), 1, fragment.Snappy)
		},
		"another index": func(m *Manifest) { m.Fragments[1][1].Index = m.Fragments[0][1].Index },
	} {
		t.Run(name, func(t *testing.T) {
			m := manifest(t, 100000, policy, 64<<10, false)
			change(m)
			if b, err := m.Encode(); !errors.Is(err, ErrFormat) {
				t.Errorf("encoded as %d bytes, %v", len(b), err)
			}
		})
	}
	m := &Manifest{Header: Header{Name: "x", Size: MaxObjectBytes, Policy: preset.Policy{K: 1, M: 2, C: 2, X: 1}, ChunkBytes: 64 << 10}}
	f := Fragment{OSD: 1, Index: index(t, 64<<10, 1, fragment.None)}
	for range m.Chunks() {
		m.Fragments = append(m.Fragments, []Fragment{f, f, f})
	}
	if _, err := m.Encode(); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "larger fragments") {
		t.Errorf("a manifest that is too large: %v", err)
	}
}

// seal gives bytes the checksum that lets a fuzzer past it.
func seal(b []byte) []byte { return binary.BigEndian.AppendUint32(bytes.Clone(b), osd.CRC(b)) }

func FuzzDecodeManifest(f *testing.F) {
	for _, m := range []*Manifest{manifest(f, 300000, preset.Policy{K: 2, M: 1, C: 3, X: 1}, 128<<10, false), manifest(f, 0, preset.Policy{K: 1, M: 2, C: 2, X: 1}, 1, true),
		manifestIn(f, fragment.Piece16K, 300000, preset.Policy{K: 2, M: 1, C: 3, X: 1}, 128<<10, false), manifestIn(f, fragment.Piece4K, 30000, preset.Policy{K: 1, M: 1, C: 2, X: 1}, 30000, false)} {
		b := encode(f, m)
		f.Add(b[:len(b)-4])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeManifest(seal(b))
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("error of another class: %v", err)
			}
			return
		}
		again, err := DecodeManifest(encode(t, m))
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Fatalf("%+v becomes %+v, %v", m, again, err)
		}
		for i := range m.Fragments {
			for j := range m.Fragments[i] {
				m.Place(1, i, j)
				m.Fragments[i][j].Index.StoredBytes()
			}
		}
	})
}

func FuzzDecodeRecovery(f *testing.F) {
	m := manifest(f, 300000, preset.Policy{K: 2, M: 1, C: 3, X: 1}, 128<<10, true)
	b, err := EncodeRecovery(m.Header, m.Fragments[0][1].Index)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[:len(b)-4])
	f.Fuzz(func(t *testing.T, b []byte) {
		h, x, err := DecodeRecovery(seal(b))
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("error of another class: %v", err)
			}
			return
		}
		b, err = EncodeRecovery(h, x)
		if err != nil {
			t.Fatal(err)
		}
		h2, x2, err := DecodeRecovery(b)
		if err != nil || h2 != h || !reflect.DeepEqual(x, x2) {
			t.Fatalf("%+v becomes %+v, %v", h, h2, err)
		}
	})
}

func FuzzKeys(f *testing.F) {
	p := Place{Namespace: 1, Object: testObject, Chunk: 2, Index: 3, Version: 4}
	for _, k := range [][]byte{p.FragmentKey(), p.TagKey(5), NamespaceKey(6), []byte(`{"id":1,"name":"n","cluster":"c"}`)} {
		f.Add(k)
	}
	f.Fuzz(func(t *testing.T, key []byte) {
		if p, err := ParseFragmentKey(key); err == nil && !bytes.Equal(p.FragmentKey(), key) {
			t.Errorf("fragment key %x becomes %x", key, p.FragmentKey())
		}
		if p, epoch, err := ParseTagKey(key); err == nil && !bytes.Equal(p.TagKey(epoch), key) {
			t.Errorf("tag key %x becomes %x", key, p.TagKey(epoch))
		}
		if ns, err := ParseNamespaceKey(key); err == nil && !bytes.Equal(NamespaceKey(ns), key) {
			t.Errorf("namespace key %x becomes %x", key, NamespaceKey(ns))
		}
		if l, err := DecodeLink(key); err == nil && (l.ID == 0 || l.Name == "") {
			t.Errorf("link %+v", l)
		}
		if i, err := DecodeInstance(key); err == nil && i.Cluster == "" {
			t.Errorf("instance %+v", i)
		}
		var o Object
		if o.UnmarshalText(key) == nil {
			if b, _ := o.MarshalText(); !bytes.Equal(b, bytes.ToLower(key)) {
				t.Errorf("object %s becomes %s", key, b)
			}
		}
	})
}

// TestPieceSize: as wanted, or the next larger that makes few enough.
func TestPieceSize(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for range 1000 {
		p := preset.Policy{K: 1 + rng.IntN(8), M: rng.IntN(5)}
		h := Header{Size: rng.Int64N(1 << (10 + rng.IntN(19))), Policy: p, ChunkBytes: p.K << (16 + rng.IntN(7))}
		pieces := func(s fragment.PieceSize) int { return h.Chunks() * p.N() * s.Pieces(h.ShardBytes(0)) }
		for want := fragment.Piece64K; want <= fragment.Piece4K; want++ {
			got := h.PieceSize(want)
			if got > want || got > fragment.Piece64K && pieces(got) > maxSmallPieces || got < want && pieces(got+1) <= maxSmallPieces {
				t.Fatalf("%+v: %v of %v, %d pieces", h, got, want, pieces(got))
			}
		}
	}
}
