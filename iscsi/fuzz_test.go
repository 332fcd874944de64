package iscsi

import (
	"strings"
	"testing"
)

// FuzzText: text keys parse into what they were, or are refused; negotiating
// them stays within the limits of the protocol.
func FuzzText(f *testing.F) {
	f.Add([]byte("InitiatorName=a\x00MaxBurstLength=4096\x00"))
	f.Add([]byte("HeaderDigest=CRC32C,None\x00=\x00"))
	f.Add([]byte("FirstBurstLength=0xffffffffff\x00X=\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		keys, err := parseText(b)
		if err != nil {
			return
		}
		w := &textWriter{}
		g := negotiation{n: defaultNegotiated()}
		for _, kv := range keys {
			if kv.key == "" || len(kv.key) > maxKey || strings.ContainsAny(kv.key, "=\x00") {
				t.Fatalf("key %q", kv.key)
			}
			g.answer(kv, w)
		}
		g.finish()
		n := g.n
		if n.MaxRecvInitiator < minSegment || n.MaxRecvInitiator > maxSegment || n.MaxBurst < minSegment || n.MaxBurst > maxBurst ||
			n.FirstBurst > n.MaxBurst || n.MaxOutstandingR2T != 1 || n.MaxConnections != 1 {
			t.Fatalf("negotiated %+v", n)
		}
		if _, err := parseText(w.b); err != nil {
			t.Fatalf("the answer %q does not parse: %v", w.b, err)
		}
	})
}

// FuzzCDB runs arbitrary CDBs in process: each is answered once, within its
// allocation length, and never answers GOOD past the end of the disk.
func FuzzCDB(f *testing.F) {
	for _, tc := range serviceCommands {
		f.Add(tc.cdb, uint32(512))
	}
	f.Add([]byte{0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0, 1}, uint32(512))
	f.Add([]byte{0xa3, 0x0c, 0x83, 0x9e, 0, 0x10, 0, 0, 2, 0}, uint32(512))
	f.Add([]byte{0x1a, 0, 0x3f, 0xff, 255}, uint32(0))
	f.Fuzz(func(t *testing.T, cdb []byte, edtl uint32) {
		k := inProcess(t, testTarget(t, 0), 0, cdb...)
		if uint64(len(k.in)) > k.cdbLen {
			t.Fatalf("% x: %d bytes for an allocation length of %d", cdb, len(k.in), k.cdbLen)
		}
		if k.status == statusGood && k.cmd == nil {
			t.Fatalf("% x: unknown, and GOOD", cdb)
		}
		if k.status == statusGood && k.cmd.length != nil && k.lba+k.blocks > 1<<30>>minBlockShift && k.cmd.flags&bulk != 0 {
			t.Fatalf("% x: GOOD beyond the end", cdb)
		}
	})
}

// FuzzAHS: segments that are taken announce no more than one read length, and only
// for a bidirectional command.
func FuzzAHS(f *testing.F) {
	f.Add([]byte{0, 5, 2, 0, 0, 0, 2, 0, 0, 17, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, true)
	f.Add([]byte{0xff, 0xff, 1, 0}, false)
	f.Fuzz(func(t *testing.T, b []byte, both bool) {
		k := &task{read: both, write: both}
		if k.takeAHS(b) && (k.readLength > 0 && !both || k.longCDB && len(b) < 8) {
			t.Fatalf("% x is taken", b)
		}
	})
}

// FuzzLUN: a LUN that decodes is one that may exist.
func FuzzLUN(f *testing.F) {
	f.Add([]byte{0x40, 1, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 8 {
			return
		}
		if n, ok := lunOf(b); ok && n > maxLUN {
			t.Fatalf("LUN %d", n)
		}
	})
}
