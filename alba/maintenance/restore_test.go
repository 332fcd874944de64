package maintenance

import (
	"testing"

	"github.com/openvstorage/ovgate/alba/fragment"
	"github.com/openvstorage/ovgate/alba/layout"
	"github.com/openvstorage/ovgate/alba/preset"
)

// What is on the devices of a chunk, and what recovery makes of it.
func TestChunkOf(t *testing.T) {
	h := layout.Header{Name: "o", Object: layout.Object{1}, Size: 100, Policy: preset.Policy{K: 2, M: 1, C: 2, X: 1}, ChunkBytes: 100}
	_, x, err := fragment.Pack(nil, fragment.ID{Object: h.Object}, make([]byte, h.ShardBytes(0)), fragment.None, fragment.Piece64K, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, longer, err := fragment.Pack(nil, fragment.ID{Object: h.Object}, make([]byte, 2*h.ShardBytes(0)), fragment.None, fragment.Piece64K, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, finer, err := fragment.Pack(nil, fragment.ID{Object: h.Object}, make([]byte, h.ShardBytes(0)), fragment.None, fragment.Piece4K, nil)
	if err != nil {
		t.Fatal(err)
	}
	type f struct {
		index   uint8
		version uint32
		osd     uint32
		what    string // "": a tag with its fragment
	}
	type want [3]struct{ osd, version uint32 }
	for name, tt := range map[string]struct {
		have []f
		want want
	}{
		"as written":              {[]f{{0, 0, 1, ""}, {1, 0, 2, ""}, {2, 0, 3, ""}}, want{{1, 0}, {2, 0}, {3, 0}}},
		"newest version":          {[]f{{0, 0, 1, ""}, {0, 9, 4, ""}, {0, 4, 5, ""}, {1, 0, 2, ""}}, want{{4, 9}, {2, 0}, {0, 0}}},
		"tag without fragment":    {[]f{{0, 0, 1, ""}, {0, 9, 4, "tag"}, {1, 7, 2, "tag"}, {2, 0, 3, ""}}, want{{1, 0}, {0, 7}, {3, 0}}},
		"another checksum":        {[]f{{0, 0, 1, "crc"}, {1, 0, 2, ""}, {2, 0, 3, "size"}}, want{{0, 0}, {2, 0}, {0, 0}}},
		"an index of another":     {[]f{{0, 0, 1, "index"}, {1, 0, 2, ""}}, want{{0, 0}, {2, 0}, {0, 0}}},
		"no device twice":         {[]f{{0, 9, 1, ""}, {0, 3, 2, ""}, {1, 5, 1, ""}}, want{{2, 3}, {1, 5}, {0, 0}}},
		"a chain of them":         {[]f{{0, 9, 1, ""}, {0, 8, 2, ""}, {1, 7, 1, ""}, {1, 6, 3, ""}, {2, 5, 3, ""}, {2, 4, 1, ""}}, want{{2, 8}, {1, 7}, {3, 5}}},
		"one of two stays out":    {[]f{{0, 1, 1, ""}, {1, 2, 1, ""}}, want{{0, 1}, {1, 2}, {0, 0}}},
		"the same on two devices": {[]f{{0, 0, 7, ""}, {0, 0, 6, ""}, {1, 0, 6, ""}}, want{{7, 0}, {6, 0}, {0, 0}}},
	} {
		t.Run(name, func(t *testing.T) {
			var records []record
			there := map[at]trace{}
			for _, f := range tt.have {
				tr := trace{osd: f.osd, version: f.version, index: f.index, size: uint32(x.StoredBytes()), crc: x.CRC()}
				r := record{tr, h, x}
				switch f.what {
				case "crc":
					tr.crc++
				case "size":
					tr.size++
				case "index":
					r.index = longer
				}
				records = append(records, r)
				if f.what != "tag" {
					there[tr.at()] = tr
				}
			}
			c := chunkOf(&layout.Manifest{Header: h}, 0, records, there)
			found := 0
			for i, w := range tt.want {
				if w.osd != 0 {
					found++
				}
				if got := c.frags[i]; got.OSD != w.osd || got.Version != w.version {
					t.Errorf("fragment %d is version %d on device %d, want %d on %d", i, got.Version, got.OSD, w.version, w.osd)
				}
			}
			if c.found != found {
				t.Errorf("%d found, want %d", c.found, found)
			}
		})
	}
	// What most have in common counts: one of another size of pieces stays out.
	records := []record{{trace{index: 2, osd: 3}, h, finer}, {trace{index: 0, osd: 1}, h, x}, {trace{index: 1, osd: 2}, h, x}}
	var stored []trace
	for i := range records {
		r := &records[i].trace
		r.size, r.crc = uint32(x.StoredBytes()), x.CRC()
		stored = append(stored, *r)
	}
	m, ok := assemble(records, stored)
	if !ok || m.Fragments[0][2].OSD != 0 || m.PieceSize() != fragment.Piece64K || m.Validate() != nil {
		t.Errorf("%+v, %v, %v", m, ok, m.Validate())
	}
}
