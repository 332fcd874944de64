package volume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/openvstorage/ovgate/internal/kv"
)

// boltRegistry is the registry over a real store in a file.
func boltRegistry(t *testing.T) (KVRegistry, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kv.db")
	return reopenRegistry(t, path), path
}

func reopenRegistry(t *testing.T, path string) KVRegistry {
	t.Helper()
	s, err := kv.OpenBolt(path, kv.BoltOptions{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return KVRegistry{s}
}

// goldenRecord has every field of a record.
func goldenRecord() Record {
	return Record{Format: 1, ID: testID(0xd0), Pool: testPool, Owner: "node-1", Epoch: 4,
		Opens:   []Opening{{4, 0xcafe, 1<<63 + 8, 90, 19, 1_700_000_000_000_000_001}},
		Head:    HeadRef{Epoch: 3, Nonce: 0xbeef, Number: 1 << 33, Hash: strings.Repeat("0f", 32)},
		DTL:     DTLRecord{State: "ok", Peer: "node-2", Generation: 1<<64 - 1},
		Journal: strings.Repeat("ab", 16), State: FlagLostTail}
}

// TestRecordGolden: every change compares all of a record's bytes, so what is
// written for a record must never change.
func TestRecordGolden(t *testing.T) {
	rec := goldenRecord()
	b, err := json.Marshal(&rec)
	if err != nil {
		t.Fatal(err)
	}
	kept := goldenFile(t, "record.json", b)
	got, err := decodeRecord(kept)
	if err != nil || !reflect.DeepEqual(got, rec) {
		t.Fatalf("%v: %+v", err, got)
	}
	pending, clone := goldenRecord(), goldenRecord()
	pending.State, pending.Void = FlagPending, []uint32{2, 3}
	clone.Parent, clone.Clones, clone.CloneGen = &ParentRef{VDisk: testID(0xd1), Seq: 1<<63 + 1}, 1000, 1<<63+2
	for name, want := range map[string]Record{"record-pending.json": pending, "record-clone.json": clone} {
		without := want
		without.DTL = DTLRecord{State: DTLOff}
		want.Format = without.format() // these files are older than copies that count
		if b, err = json.Marshal(&want); err != nil {
			t.Fatal(err)
		}
		if got, err = decodeRecord(goldenFile(t, name, b)); err != nil || !reflect.DeepEqual(got, want) || got.Format != 2 {
			t.Fatalf("%s: %v: %+v", name, err, got)
		}
	}
	mirrored := goldenRecord()
	mirrored.DTL.State = DTLDegraded
	mirrored.Format = mirrored.format()
	if b, err = json.Marshal(&mirrored); err != nil {
		t.Fatal(err)
	}
	if got, err = decodeRecord(goldenFile(t, "record-dtl.json", b)); err != nil || !reflect.DeepEqual(got, mirrored) || got.Format != 4 {
		t.Fatalf("%v: %+v", err, got)
	}
	changed := mirrored
	changed.DTL = DTLRecord{State: DTLOK, Peer: "node-2", Generation: 77, Async: true, Change: 3}
	changed.Format = changed.format()
	if b, err = json.Marshal(&changed); err != nil {
		t.Fatal(err)
	}
	if got, err = decodeRecord(goldenFile(t, "record-dtlchange.json", b)); err != nil || !reflect.DeepEqual(got, changed) || got.Format != 5 {
		t.Fatalf("%v: %+v", err, got)
	}
	least := Record{Format: 1, ID: testID(1), Pool: testPool, DTL: DTLRecord{State: "off"}}
	if b, err = json.Marshal(&least); err != nil {
		t.Fatal(err)
	}
	if got, err = decodeRecord(goldenFile(t, "record-least.json", b)); err != nil || !reflect.DeepEqual(got, least) {
		t.Fatalf("%v: %+v", err, got)
	}
}

func TestRecordRefused(t *testing.T) {
	for _, c := range []struct {
		value, want string
		is          error
	}{
		{"", "damaged", ErrCorrupt},
		{"{", "damaged", ErrCorrupt},
		{`{"format":1,"id":"not-a-uuid"}`, "damaged", ErrCorrupt},
		{`{"format":1,"epoch":-1}`, "damaged", ErrCorrupt},
		{`{"format":6,"id":"d0000000-0000-4000-8000-000000000000"}`, "upgrade", nil},
	} {
		_, err := decodeRecord([]byte(c.value))
		if err == nil || !strings.Contains(err.Error(), c.want) || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%q: %v, want %q", c.value, err, c.want)
		}
	}
}

func FuzzDecodeRecord(f *testing.F) {
	rec := goldenRecord()
	b, err := json.Marshal(&rec)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"format":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		rec, err := decodeRecord(b)
		if err != nil {
			return
		}
		one, err := json.Marshal(&rec)
		if err != nil {
			t.Fatal(err)
		}
		again, err := decodeRecord(one)
		if err != nil || !again.equal(&rec) {
			t.Fatalf("does not survive another round: %v", err)
		}
	})
}

// TestRegistrySwap: a record changes only from what the caller knows (O1).
func TestRegistrySwap(t *testing.T) {
	ctx := t.Context()
	reg, path := boltRegistry(t)
	id := testID(1)
	if _, err := reg.Load(ctx, id); !errors.Is(err, ErrNotFound) {
		t.Fatalf("load of nothing: %v", err)
	}
	one := Record{Format: 1, ID: id, Pool: testPool, Epoch: 1, DTL: DTLRecord{State: "off"}}
	two, three := one, one
	two.Epoch, three.Epoch = 2, 3
	other := one
	other.ID = testID(2)
	for i, c := range []struct {
		old, new *Record
		want     error
		then     *Record
	}{
		{&one, &two, ErrConflict, nil},
		{&one, nil, ErrConflict, nil},
		{nil, &one, nil, &one},
		{nil, &one, ErrConflict, &one},
		{&two, &three, ErrConflict, &one},
		{&one, &other, ErrInvalid, &one},
		{&one, &two, nil, &two},
		{&one, &three, ErrConflict, &two},
		{&one, nil, ErrConflict, &two},
		{&two, nil, nil, nil},
		{&two, nil, ErrConflict, nil},
		{nil, &three, nil, &three},
	} {
		if err := reg.Apply(ctx, Change{c.old, c.new}); !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Fatalf("step %d: %v, want %v", i, err, c.want)
		}
		got, err := reg.Load(ctx, id)
		switch {
		case c.then == nil && !errors.Is(err, ErrNotFound):
			t.Fatalf("step %d: %+v, %v; want nothing", i, got, err)
		case c.then != nil && (err != nil || !got.equal(c.then)):
			t.Fatalf("step %d: %+v, %v; want %+v", i, got, err, c.then)
		}
	}
	if err := reg.Store.Close(); err != nil {
		t.Fatal(err)
	}
	if err := reg.Apply(ctx, Change{&three, &one}); err == nil || errors.Is(err, ErrConflict) {
		t.Fatalf("swap on a closed store: %v", err)
	}
	if got, err := reopenRegistry(t, path).Load(ctx, id); err != nil || !got.equal(&three) {
		t.Fatalf("after a restart: %+v, %v", got, err)
	}
}

// TestRegistryRace: of many that swap the same record, one wins each round.
func TestRegistryRace(t *testing.T) {
	ctx := t.Context()
	reg, _ := boltRegistry(t)
	rec := Record{Format: 1, ID: testID(1), Pool: testPool}
	if err := reg.Apply(ctx, Change{nil, &rec}); err != nil {
		t.Fatal(err)
	}
	var won atomic.Uint32
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for range 25 {
				old, err := reg.Load(ctx, rec.ID)
				if err != nil {
					t.Error(err)
					return
				}
				next := old
				next.Epoch, next.Owner = old.Epoch+1, fmt.Sprintf("node-%d", g)
				if err := reg.Apply(ctx, Change{&old, &next}); err == nil {
					won.Add(1)
				} else if !errors.Is(err, ErrConflict) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got, err := reg.Load(ctx, rec.ID); err != nil || got.Epoch != won.Load() || got.Epoch == 0 {
		t.Fatalf("epoch %d after %d swaps that won, %v", got.Epoch, won.Load(), err)
	}
}

// TestRegistryList: all records of a vPool, over several pages of the store, and
// no other's.
func TestRegistryList(t *testing.T) {
	ctx := t.Context()
	reg, _ := boltRegistry(t)
	const n = 1203
	for from := 0; from < n; from += kv.MaxTxnOps {
		var ops []kv.Op
		for i := from; i < min(n, from+kv.MaxTxnOps); i++ {
			rec := Record{Format: 1, Pool: testPool, Epoch: uint32(i)}
			rec.ID = testID(byte(i))
			rec.ID[1] = byte(i >> 8)
			if i%3 == 0 {
				rec.Pool = "another"
			}
			b, err := json.Marshal(&rec)
			if err != nil {
				t.Fatal(err)
			}
			ops = append(ops, kv.Put(registryPrefix+rec.ID.String(), b))
		}
		if _, err := reg.Store.Txn(ctx, nil, ops, nil); err != nil {
			t.Fatal(err)
		}
	}
	for pool, want := range map[string]int{testPool: n - (n+2)/3, "another": (n + 2) / 3, "none": 0} {
		seen := map[ID]bool{}
		if err := reg.List(ctx, pool, func(r Record) error {
			if r.Pool != pool || seen[r.ID] {
				return fmt.Errorf("record %s of pool %s, seen before: %t", r.ID, r.Pool, seen[r.ID])
			}
			seen[r.ID] = true
			return nil
		}); err != nil || len(seen) != want {
			t.Fatalf("pool %s: %d records, want %d, %v", pool, len(seen), want, err)
		}
	}
	stop := errors.New("stop")
	calls := 0
	if err := reg.List(ctx, testPool, func(Record) error { calls++; return stop }); !errors.Is(err, stop) || calls != 1 {
		t.Fatalf("%d calls, %v", calls, err)
	}
	if _, err := reg.Store.Txn(ctx, nil, []kv.Op{kv.Put(registryPrefix+"bad", []byte("{"))}, nil); err != nil {
		t.Fatal(err)
	}
	if err := reg.List(ctx, testPool, func(Record) error { return nil }); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("a damaged record is passed over: %v", err)
	}
	done, cancel := context.WithCancel(ctx)
	cancel()
	if err := reg.List(done, testPool, func(Record) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Fatalf("list with an ended context: %v", err)
	}
}
