package control

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// TestCommands are golden: people paste them.
func TestCommands(t *testing.T) {
	c := makeCommands("iqn.2026-11.io.ovgate:gold-one", 0, []iscsi.Portal{{Address: "10.0.0.5:3260"}, {Address: "[fd00::5]:3260"}}, Credentials{User: "one", Secret: "gSecret234567890"})
	for what, pair := range map[string][2]string{
		"libiscsi": {c.Libiscsi, "iscsi://one%gSecret234567890@10.0.0.5:3260/iqn.2026-11.io.ovgate:gold-one/0"},
		"linux": {c.Iscsiadm, `iscsiadm -m node -T iqn.2026-11.io.ovgate:gold-one -p '10.0.0.5:3260' -o new
iscsiadm -m node -T iqn.2026-11.io.ovgate:gold-one -p '10.0.0.5:3260' -o update -n node.session.auth.authmethod -v CHAP
iscsiadm -m node -T iqn.2026-11.io.ovgate:gold-one -p '10.0.0.5:3260' -o update -n node.session.auth.username -v one
iscsiadm -m node -T iqn.2026-11.io.ovgate:gold-one -p '10.0.0.5:3260' -o update -n node.session.auth.password -v gSecret234567890
iscsiadm -m node -T iqn.2026-11.io.ovgate:gold-one -p '10.0.0.5:3260' --login
iscsiadm -m node -T iqn.2026-11.io.ovgate:gold-one -p '[fd00::5]:3260' -o new
iscsiadm -m node -T iqn.2026-11.io.ovgate:gold-one -p '[fd00::5]:3260' -o update -n node.session.auth.authmethod -v CHAP
iscsiadm -m node -T iqn.2026-11.io.ovgate:gold-one -p '[fd00::5]:3260' -o update -n node.session.auth.username -v one
iscsiadm -m node -T iqn.2026-11.io.ovgate:gold-one -p '[fd00::5]:3260' -o update -n node.session.auth.password -v gSecret234567890
iscsiadm -m node -T iqn.2026-11.io.ovgate:gold-one -p '[fd00::5]:3260' --login`},
		"esxi": {strings.Join(strings.Split(c.ESXi, "\n")[:4], "\n"), `esxcli iscsi software set --enabled=true
HBA=$(esxcli iscsi adapter list | awk '/iscsi_vmk/{print $1; exit}')
esxcli iscsi adapter discovery statictarget add --adapter="$HBA" --address='10.0.0.5:3260' --name=iqn.2026-11.io.ovgate:gold-one
esxcli iscsi adapter target portal auth chap set --adapter="$HBA" --address='10.0.0.5:3260' --name=iqn.2026-11.io.ovgate:gold-one --direction=uni --level=required --authname=one --secret=gSecret234567890`},
		"windows": {strings.Join(strings.Split(c.Windows, "\n")[4:], "\n"), `New-IscsiTargetPortal -TargetPortalAddress fd00::5 -TargetPortalPortNumber 3260
Connect-IscsiTarget -NodeAddress iqn.2026-11.io.ovgate:gold-one -TargetPortalAddress fd00::5 -TargetPortalPortNumber 3260 -IsPersistent $true -AuthenticationType ONEWAYCHAP -ChapUsername one -ChapSecret gSecret234567890`},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s:\n%s\nwant\n%s", what, pair[0], pair[1])
		}
	}
}

// TestSecret: what ESXi and Windows take, nothing that a shell or URL changes,
// every character of the alphabet, no two alike.
func TestSecret(t *testing.T) {
	used, seen := map[rune]bool{}, map[string]bool{}
	for range 2000 {
		s, err := newSecret(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if len(s) < 12 || len(s) > 16 || !strings.Contains(secretFirst, s[:1]) || strings.Trim(s[1:], secretRest) != "" || strings.ContainsAny(s[:1], "0123456789abcdefABCDEF") || seen[s] {
			t.Fatalf("secret %q", s)
		}
		seen[s] = true
		for _, r := range s {
			used[r] = true
		}
	}
	for _, r := range secretRest {
		if !used[r] {
			t.Errorf("%c is never drawn", r)
		}
	}
	if _, err := newSecret(iotest.ErrReader(errors.New("no randomness"))); err == nil {
		t.Error("a secret without randomness")
	}
}

func TestSealer(t *testing.T) {
	a, err := NewSealer(bytes.Repeat([]byte{1}, SealKeySize))
	if err != nil {
		t.Fatal(err)
	}
	b, err := NewSealer(bytes.Repeat([]byte{2}, SealKeySize))
	if err != nil {
		t.Fatal(err)
	}
	x, err := a.Seal("id", "secret")
	if err != nil {
		t.Fatal(err)
	}
	y, err := a.Seal("id", "secret")
	if err != nil || bytes.Equal(x, y) || bytes.Contains(x, []byte("secret")) {
		t.Errorf("sealed twice: %x %x %v", x, y, err)
	}
	if s, err := a.Open("id", x); s != "secret" || err != nil {
		t.Errorf("opened: %q %v", s, err)
	}
	damaged := bytes.Clone(x)
	damaged[len(damaged)-1]++
	for what, f := range map[string]func() (string, error){
		"other key": func() (string, error) { return b.Open("id", x) },
		"other id":  func() (string, error) { return a.Open("id2", x) },
		"damaged":   func() (string, error) { return a.Open("id", damaged) },
		"short":     func() (string, error) { return a.Open("id", x[:12]) },
		"empty":     func() (string, error) { return a.Open("id", nil) },
	} {
		if s, err := f(); s != "" || !errors.Is(err, ErrSeal) {
			t.Errorf("%s: %q %v", what, s, err)
		}
	}
	one, again := a.Digest([]byte("x")), a.Digest([]byte("x"))
	if one == b.Digest([]byte("x")) || one != again || one == a.Digest([]byte("y")) {
		t.Error("a digest is not of key and data alone")
	}
	if _, err := NewSealer(make([]byte, 16)); err == nil {
		t.Error("a short key is taken")
	}
}

func TestNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"a": true, "Demo-1.x_y": true, strings.Repeat("x", 64): true,
		"": false, "-a": false, ".a": false, "a b": false, "a/b": false, "ä": false, "a\n": false, strings.Repeat("x", 65): false,
		"01234567-89ab-4def-8123-456789abcdef": false,
	} {
		if e := checkName("vdisk", name); (e == nil) != ok {
			t.Errorf("%q: %v", name, e)
		}
	}
	long := makeIQN(strings.Repeat("P", 64), strings.Repeat("D", 64), "01234567-89ab-4def-8123-456789abcdef")
	if err := iscsi.CheckName(long); err != nil {
		t.Errorf("the longest IQN: %v", err)
	}
	id, err := volume.ParseID("01234567-89ab-4def-8123-456789abcdef")
	if err != nil {
		t.Fatal(err)
	}
	if naa := fmt.Sprintf("%x", makeNAA(id)); naa != "6026f76789ab4def8123456789abcdef" {
		t.Errorf("NAA %s", naa)
	}
}

// instant is a Volume that answers at once with err.
type instant struct {
	Volume
	err  error
	last volume.Request
}

func (v *instant) Size() int64 { return 1 << 20 }

func (v *instant) Stats() volume.Stats { return volume.Stats{StoredBytes: 100, JournalBytes: 11} }

func (v *instant) Submit(r *volume.Request) {
	v.last = volume.Request{Kind: r.Kind, Offset: r.Offset, Length: r.Length, Data: r.Data}
	r.Err, r.MiscompareAt = v.err, 7
	r.Done.Complete(r)
}

type done struct{ n int }

func (d *done) Complete(*iscsi.Op) { d.n++ }

// TestDisk: operations and errors keep their meaning, and an I/O allocates nothing.
func TestDisk(t *testing.T) {
	v := &instant{}
	d := newDisk(v, nil, nil)
	fin := &done{}
	op := &iscsi.Op{Done: fin, Offset: 4096, Length: 8192, Data: make([]byte, 512)}
	for kind, want := range map[iscsi.OpKind]volume.RequestKind{
		iscsi.OpRead: volume.ReqRead, iscsi.OpWrite: volume.ReqWrite, iscsi.OpZero: volume.ReqZero,
		iscsi.OpUnmap: volume.ReqUnmap, iscsi.OpFlush: volume.ReqFlush, iscsi.OpCompareAndWrite: volume.ReqCompareAndWrite,
		iscsi.OpOrWrite: volume.ReqOrWrite,
	} {
		op.Kind = kind
		d.Submit(op)
		if v.last.Kind != want || v.last.Offset != 4096 || v.last.Length != 8192 || &v.last.Data[0] != &op.Data[0] || op.Err != nil {
			t.Errorf("op %d became %+v, error %v", kind, v.last, op.Err)
		}
	}
	for err, want := range map[error]error{
		volume.ErrStalled: iscsi.ErrBusy, volume.ErrBackend: iscsi.ErrBusy, volume.ErrFenced: iscsi.ErrGone, volume.ErrClosed: iscsi.ErrGone,
		volume.ErrLostTail: iscsi.ErrGone, volume.ErrMedium: iscsi.ErrMedium, volume.ErrMiscompare: iscsi.ErrMiscompare,
		volume.ErrFailed: volume.ErrFailed, volume.ErrCorrupt: volume.ErrCorrupt,
	} {
		v.err = fmt.Errorf("vdisk x: %w", err)
		d.Submit(op)
		if !errors.Is(op.Err, want) || op.MiscompareAt != 7 {
			t.Errorf("%v became %v", err, op.Err)
		}
	}
	v.err = fmt.Errorf("vdisk x: %w (%w)", volume.ErrStalled, backend.ErrFull)
	if d.Submit(op); !errors.Is(op.Err, iscsi.ErrNoSpace) {
		t.Errorf("a full backend became %v", op.Err)
	}
	v.err = fmt.Errorf("vdisk x: %w", &volume.MediumError{Offset: 12288, Err: errors.New("checksum")})
	if d.Submit(op); !errors.Is(op.Err, iscsi.ErrMedium) || op.BadOffset != 12288 {
		t.Errorf("a medium error at 12288 became %v at %d", op.Err, op.BadOffset)
	}
	v.err = nil
	fin.n = 0
	if n := testing.AllocsPerRun(1000, func() { d.Submit(op) }); n != 0 {
		t.Errorf("%v allocations per operation", n)
	}
	if fin.n != 1001 {
		t.Errorf("%d completions", fin.n)
	}
}

// TestSpace: what a vDisk tells of thin space, and when initiators are warned.
func TestSpace(t *testing.T) {
	s := &poolSpace{}
	d := newDisk(&instant{}, s, nil)
	for i, tc := range []struct {
		u    backend.Usage
		warn bool
		want iscsi.Space
	}{
		{backend.Usage{}, false, iscsi.Space{Available: -1}}, // a store without end
		{backend.Usage{Total: 1000, Free: 500}, false, iscsi.Space{Used: 111, Available: 500, Threshold: 100}},
		{backend.Usage{Total: 1000, Free: 100}, true, iscsi.Space{Used: 111, Available: 100, Threshold: 100}},
		{backend.Usage{Total: 1000, Free: 0}, false, iscsi.Space{Used: 111, Threshold: 100}}, // once
		{backend.Usage{Total: 1000, Free: 101}, false, iscsi.Space{Used: 111, Available: 101, Threshold: 100}},
		{backend.Usage{Total: 1000, Free: 99}, true, iscsi.Space{Used: 111, Available: 99, Threshold: 100}},
	} {
		if warn := s.set(tc.u); warn != tc.warn || d.Space() != tc.want {
			t.Errorf("%d: warned %v, %+v", i, warn, d.Space())
		}
	}
	if got := newDisk(&instant{}, nil, nil).Space(); got.Available != -1 {
		t.Errorf("nothing known: %+v", got)
	}
}
