package nsm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/openvstorage/ovgate/alba/layout"
	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/internal/kv"
)

// Garbage is a set of fragments that no manifest names, all of one object.
type Garbage struct {
	Namespace uint64
	Places    []Dropped

	key string
	rev int64
}

// Dropped is a fragment to delete, with its tag.
type Dropped struct {
	OSD     uint32
	Object  layout.Object
	Chunk   uint32
	Index   uint8
	Version uint32
	Epoch   uint64
}

// Place returns the fragment's name.
func (d Dropped) Place(ns uint64) layout.Place {
	return layout.Place{Namespace: ns, Object: d.Object, Chunk: d.Chunk, Index: d.Index, Version: d.Version}
}

// garbageV1 is the first byte of a garbage record.
const garbageV1 = 0x61

// encodeGarbage returns the record of garbage:
//
//	0x61 | object | per fragment {chunks since the last one, index, osd, version, epoch} | crc32c
//
// with numbers as varints, but for the index, a byte. In whatever order a manifest
// has them, that is less than the manifest took: so an object whose manifest
// could be stored can be replaced by another as large in one transaction.
func encodeGarbage(places []Dropped) []byte {
	b := append([]byte{garbageV1}, places[0].Object[:]...)
	var chunk uint32
	for _, d := range places {
		b = binary.AppendUvarint(b, uint64(d.Chunk-chunk))
		chunk = d.Chunk
		b = append(b, d.Index)
		b = binary.AppendUvarint(b, uint64(d.OSD))
		b = binary.AppendUvarint(b, uint64(d.Version))
		b = binary.AppendUvarint(b, d.Epoch)
	}
	return binary.BigEndian.AppendUint32(b, osd.CRC(b))
}

var errGarbage = errors.New("nsm: damaged garbage record")

// decodeGarbage reads what encodeGarbage wrote.
func decodeGarbage(b []byte) ([]Dropped, error) {
	const head, sum = 1 + len(layout.Object{}), 4
	if len(b) < head+sum || b[0] != garbageV1 {
		return nil, fmt.Errorf("%w: %d bytes", errGarbage, len(b))
	}
	body := b[:len(b)-sum]
	if osd.CRC(body) != binary.BigEndian.Uint32(b[len(body):]) {
		return nil, fmt.Errorf("%w: it does not fit its checksum", errGarbage)
	}
	d := Dropped{Object: layout.Object(body[1:head])}
	var out []Dropped
	for p := body[head:]; len(p) > 0; out = append(out, d) {
		var delta, number, version uint64
		for i, v := range []*uint64{&delta, nil, &number, &version, &d.Epoch} {
			if i == 1 {
				if len(p) == 0 {
					return nil, errGarbage
				}
				d.Index, p = p[0], p[1:]
				continue
			}
			x, n := binary.Uvarint(p)
			if n <= 0 || i < 4 && x > 1<<32-1 {
				return nil, errGarbage
			}
			*v, p = x, p[n:]
		}
		d.Chunk += uint32(delta)
		d.OSD, d.Version = uint32(number), uint32(version)
	}
	return out, nil
}

// garbageMax bounds the records of a listing: one can hold all the fragments of a
// large object, some 30,000.
const garbageMax = 50

// ListGarbage returns garbage of all namespaces after some of it; none at the end.
func (h *Host) ListGarbage(ctx context.Context, after *Garbage, limit int) ([]Garbage, error) {
	from := ""
	if after != nil {
		from = after.key
	}
	recs, _, err := h.kv.Range(ctx, garbageAll, from, min(max(limit, 1), garbageMax))
	if err != nil {
		return nil, err
	}
	out := make([]Garbage, len(recs))
	for i, rec := range recs {
		g := &out[i]
		g.key, g.rev = string(rec.Key), rec.ModRev
		if g.Places, err = decodeGarbage(rec.Value); err != nil {
			return nil, badRecord(g.key, err)
		}
		if g.Namespace, _, err = split(rec.Key, garbageAll); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Collected removes garbage whose fragments are gone; "left" is what could not be
// deleted yet and stays, in the order it had.
func (h *Host) Collected(ctx context.Context, g Garbage, left []Dropped) error {
	op := kv.Delete(g.key)
	if len(left) > 0 {
		op = kv.Put(g.key, encodeGarbage(left))
	}
	_, err := h.kv.Txn(ctx, []kv.Compare{kv.ModRevIs(g.key, g.rev)}, []kv.Op{op}, nil)
	return err
}
