package nsm

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/openvstorage/ovgate/alba/layout"
	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/alba/preset"
)

var makeGolden = flag.Bool("golden", false, "make golden files that are missing")

func someGarbage() []Dropped {
	o := layout.Object{1, 15: 2}
	return []Dropped{
		{OSD: 1, Object: o, Epoch: 1},
		{OSD: 300, Object: o, Index: 5, Version: 70000, Epoch: 1 << 40},
		{OSD: 1<<32 - 1, Object: o, Chunk: 2, Index: 255, Version: 1<<32 - 1, Epoch: 1<<64 - 1},
		{OSD: 2, Object: o, Chunk: 16000, Epoch: 9},
	}
}

// TestGoldenRecords holds keys and values of every record, a line each.
func TestGoldenRecords(t *testing.T) {
	var b strings.Builder
	text := func(v any) string {
		s, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(s)
	}
	n := Namespace{ID: 10, Name: "ns", State: Recovering, EpochMin: 3, EpochMax: 4, Revision: 99,
		Preset: preset.Preset{Name: "p", Policies: []preset.Policy{{K: 4, M: 2, C: 5, X: 2}}, FragmentBytes: 1 << 20}}
	fmt.Fprintf(&b, "%s %s\n", nsKey(10), text(n))
	fmt.Fprintf(&b, "%s %s\n", devicesKey, text(Devices{Closed: []uint32{1, 7}, Revision: 9}))
	fmt.Fprintf(&b, "%s %s\n", workKey(10, "a/b"), text(Work{Namespace: 10, Name: "a/b", Why: "why", Revision: 3}))
	fmt.Fprintf(&b, "%s %s\n", workKey(10, "a/c"), text(Work{Why: "why", Reported: true}))
	fmt.Fprintf(&b, "%s %x\n", objectKey(10, "a/b"), "manifest")
	fmt.Fprintf(&b, "%s %x\n", garbagePrefix(10), encodeGarbage(someGarbage()))
	path := filepath.Join("testdata", "records.txt")
	kept, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && *makeGolden {
		kept = []byte(b.String())
		err = os.WriteFile(path, kept, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(kept) {
		t.Errorf("got\n%swant\n%s", b.String(), kept)
	}
	got, err := decodeGarbage(encodeGarbage(someGarbage()))
	if err != nil || !reflect.DeepEqual(got, someGarbage()) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestGarbageDamage(t *testing.T) {
	b := encodeGarbage(someGarbage())
	for i := range b {
		b[i] ^= 0x41
		if _, err := decodeGarbage(b); !errors.Is(err, errGarbage) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
		b[i] ^= 0x41
		if _, err := decodeGarbage(b[:i]); !errors.Is(err, errGarbage) {
			t.Fatalf("%d bytes: %v", i, err)
		}
	}
}

func FuzzGarbage(f *testing.F) {
	b := encodeGarbage(someGarbage())
	f.Add(b[:len(b)-4])
	f.Fuzz(func(t *testing.T, b []byte) {
		places, err := decodeGarbage(binary.BigEndian.AppendUint32(bytes.Clone(b), osd.CRC(b)))
		if err != nil {
			if !errors.Is(err, errGarbage) {
				t.Fatal(err)
			}
			return
		}
		if len(places) == 0 {
			return
		}
		again, err := decodeGarbage(encodeGarbage(places))
		if err != nil || !reflect.DeepEqual(again, places) {
			t.Fatalf("%+v becomes %+v, %v", places, again, err)
		}
	})
}
