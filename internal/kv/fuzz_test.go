package kv_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"testing"

	"github.com/openvstorage/ovgate/internal/kv"
)

// FuzzTxn feeds arbitrary transactions: whatever Validate refuses is refused by
// the store and changes nothing; whatever it passes runs, and its puts can be
// read back.
func FuzzTxn(f *testing.F) {
	f.Add([]byte("\x01\x01a\x00\x02\x01\x01a\x01v\x02\x01b\x00"))
	f.Add([]byte("\x00\x03\x01\x00\x00\x09\x01a\x00\x01\x01a\x00"))
	f.Add([]byte("\x02\x01a\x01\x01b\xff\x01\x03\x01a\x00"))
	f.Add(bytes.Repeat([]byte{1}, 300))
	s, err := kv.OpenBolt(filepath.Join(f.TempDir(), "kv.db"), kv.BoltOptions{NoSync: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := s.Close(); err != nil {
			f.Error(err)
		}
	})
	f.Fuzz(func(t *testing.T, in []byte) {
		ctx := t.Context()
		r := &reader{in}
		cmps, then, els := r.compares(), r.ops(), r.ops()
		before, err := s.Txn(ctx, nil, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		refusal := kv.Validate(cmps, then, els)
		res, err := s.Txn(ctx, cmps, then, els)
		if refusal != nil {
			if !errors.Is(err, kv.ErrInvalid) {
				t.Fatalf("Validate says %v, the store %v", refusal, err)
			}
		} else if err != nil && !errors.Is(err, kv.ErrLeaseNotFound) {
			t.Fatal(err)
		}
		if err != nil {
			after, err := s.Txn(ctx, nil, nil, nil)
			if err != nil || after.Rev != before.Rev {
				t.Fatalf("a refused transaction moved revision %d to %d: %v", before.Rev, after.Rev, err)
			}
			return
		}
		ran := then
		if !res.Succeeded {
			ran = els
		}
		for _, op := range ran {
			e, err := s.Get(ctx, string(op.Key))
			if err != nil {
				t.Fatal(err)
			}
			if op.Kind == kv.OpPut && (e == nil || !bytes.Equal(e.Value, op.Value)) || op.Kind == kv.OpDelete && e != nil {
				t.Fatalf("after %+v the key is %+v", op, e)
			}
		}
	})
}

// reader makes a transaction out of fuzzed bytes; a missing byte is 0.
type reader struct{ in []byte }

func (r *reader) byte() byte {
	if len(r.in) == 0 {
		return 0
	}
	b := r.in[0]
	r.in = r.in[1:]
	return b
}

// bytes reads a length and that many bytes; 0xff stands for one more than a
// key may have.
func (r *reader) bytes() []byte {
	n := int(r.byte())
	if n == 0xff {
		return make([]byte, kv.MaxKeyBytes+1)
	}
	n = min(n, len(r.in))
	b := r.in[:n]
	r.in = r.in[n:]
	return b
}

func (r *reader) compares() []kv.Compare {
	out := make([]kv.Compare, r.byte()%130)
	for i := range out {
		out[i] = kv.Compare{Target: kv.Target(r.byte() % 5), Key: r.bytes(), Rev: int64(int8(r.byte()))}
		if out[i].Target == kv.CompareValue {
			out[i].Rev, out[i].Value = 0, r.bytes()
		}
	}
	return out
}

func (r *reader) ops() []kv.Op {
	out := make([]kv.Op, r.byte()%130)
	for i := range out {
		out[i] = kv.Op{Kind: kv.OpKind(r.byte() % 5), Key: r.bytes()}
		switch r.byte() % 4 {
		case 1:
			out[i].Value = r.bytes()
		case 2:
			out[i].Lease = kv.LeaseID(int8(r.byte()))
		}
	}
	return out
}
