package disk

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

// golden is the label of format 1, without the zeros between its parts; it stays
// readable for ever.
var golden = label{ready, "0085ffc3-c330-4a54-88f3-ce812afee08d", 4000787030016, "ZC1 0001", "naa.5000c500a1b2c3d4"}

var goldenParts = []struct {
	at  int
	hex string
}{
	{0, "4f564741544520415344204449534b0a" + "00000001" + "00000003"},
	{24, hex.EncodeToString([]byte("0085ffc3-c330-4a54-88f3-ce812afee08d"))},
	{60, "000003a3817d6000" + "0008" + hex.EncodeToString([]byte("ZC1 0001"))},
	{198, "0014" + hex.EncodeToString([]byte("naa.5000c500a1b2c3d4"))},
	{508, "da01acda"},
}

// TestGoldenLabel holds the format.
func TestGoldenLabel(t *testing.T) {
	want := make([]byte, labelBlock)
	for _, p := range goldenParts {
		b, err := hex.DecodeString(p.hex)
		if err != nil {
			t.Fatal(err)
		}
		copy(want[p.at:], b)
	}
	got, err := golden.encode()
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("label is %x, %v", got[:labelBytes], err)
	}
	if l, err := decodeLabel(want); err != nil || *l != golden {
		t.Errorf("%+v, %v", l, err)
	}
	for i := len(labelMagic); i < labelBytes; i++ {
		bad := bytes.Clone(want)
		bad[i] ^= 1
		if l, err := decodeLabel(bad); !errors.Is(err, errLabel) {
			t.Errorf("with byte %d changed: %+v, %v", i, l, err)
		}
	}
	if _, err := (label{making, golden.uuid, 1, strings.Repeat("x", maxSerial+1), ""}).encode(); !errors.Is(err, ErrUnfit) {
		t.Errorf("a serial that does not fit: %v", err)
	}
}

// TestLabelOf: which disks a label is of.
func TestLabelOf(t *testing.T) {
	for _, c := range []struct {
		name        string
		label, disk [2]string // serial, WWN
		same        bool
	}{
		{"the same", [2]string{"S", "W"}, [2]string{"S", "W"}, true},
		{"on another controller", [2]string{"S", "W"}, [2]string{"S", "V"}, true},
		{"another serial", [2]string{"S", "W"}, [2]string{"R", "W"}, false},
		{"WWN alone", [2]string{"", "W"}, [2]string{"S", "W"}, true},
		{"another WWN", [2]string{"", "W"}, [2]string{"S", "V"}, false},
		{"no serial any more", [2]string{"S", ""}, [2]string{"", ""}, false},
		{"never told one", [2]string{"", ""}, [2]string{"", ""}, true},
	} {
		err := label{serial: c.label[0], wwn: c.label[1]}.of(Disk{Serial: c.disk[0], WWN: c.disk[1], Size: MinSize})
		if same := err == nil; same != c.same || err != nil && !errors.Is(err, ErrWrong) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// FuzzLabel: what decodes encodes to the same.
func FuzzLabel(f *testing.F) {
	b, err := golden.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := decodeLabel(b)
		if l == nil || err != nil {
			return
		}
		again, err := l.encode()
		if err != nil {
			t.Fatal(err)
		}
		if m, err := decodeLabel(again); err != nil || *m != *l {
			t.Errorf("%+v became %+v, %v", l, m, err)
		}
	})
}
