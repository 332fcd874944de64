package iscsi_test

import (
	"bytes"
	"fmt"
	"math/rand"
	"testing"

	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/iscsi/initiator"
)

// TestTransfer moves random data under every combination of digests, immediate
// and unsolicited data and segment sizes, and compares with the disk.
func TestTransfer(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	for _, digest := range []bool{false, true} {
		for _, noImmediate := range []bool{false, true} {
			for _, unsolicited := range []bool{false, true} {
				for _, small := range []bool{false, true} {
					name := fmt.Sprintf("digest=%v,noimm=%v,unsolicited=%v,small=%v", digest, noImmediate, unsolicited, small)
					t.Run(name, func(t *testing.T) {
						s := n.login(func(o *initiator.Options) {
							o.HeaderDigest, o.DataDigest = digest, digest
							o.NoImmediateData, o.Unsolicited = noImmediate, unsolicited
							if small {
								o.MaxRecvDataSegmentLength, o.MaxBurstLength, o.FirstBurstLength = 1024, 4096, 1536
							}
						})
						g := s.Negotiated()
						if g.DataDigest != digest || g.ImmediateData == noImmediate || g.InitialR2T == unsolicited {
							t.Fatalf("negotiated %+v", g)
						}
						transfer(t, n, s)
						if err := s.Logout(n.ctx); err != nil {
							t.Fatal(err)
						}
					})
				}
			}
		}
	}
}

func transfer(t *testing.T, n *node, s *initiator.Session) {
	rnd := rand.New(rand.NewSource(7))
	for _, blocks := range []int{1, 2, 3, 7, 8, 9, 64, 129, 2048, 8192} {
		p := make([]byte, blocks*512)
		rnd.Read(p)
		lba := uint64(rnd.Intn(diskSize/512 - blocks))
		if err := s.WriteAt(n.ctx, 0, p, lba); err != nil {
			t.Fatalf("write of %d blocks: %v", blocks, err)
		}
		onDisk := make([]byte, len(p))
		if _, err := n.disk.ReadAt(onDisk, int64(lba*512)); err != nil || !bytes.Equal(onDisk, p) {
			t.Fatalf("%d blocks differ on the disk (%v)", blocks, err)
		}
		got := make([]byte, len(p))
		if err := s.ReadAt(n.ctx, 0, got, lba); err != nil || !bytes.Equal(got, p) {
			t.Fatalf("read of %d blocks: %v", blocks, err)
		}
	}
}

// TestDepth keeps a full window in flight against a disk that completes from
// other goroutines, in any order.
func TestDepth(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	n.disk.SetDelay(1)
	s := n.login(nil)
	const commands, depth = 2000, 300 // beyond the window: the initiator must wait for it
	free := make(chan *initiator.Command, depth)
	for range depth {
		c := &initiator.Command{In: make([]byte, 4096)}
		c.Done = func(c *initiator.Command) { free <- c }
		free <- c
	}
	for i := range commands {
		c := <-free
		if c.Err != nil {
			t.Fatal(c.Err)
		}
		if c.In != nil && c.Out == nil && i%2 == 1 {
			c.Out, c.In = c.In, nil
			c.CDB = initiator.WriteCDB(uint64(i%1000)*8, 8, false)
		} else {
			if c.In == nil {
				c.In, c.Out = c.Out, nil
			}
			c.CDB = initiator.ReadCDB(uint64(i%1000)*8, 8)
		}
		if err := s.Submit(c); err != nil {
			t.Fatal(err)
		}
	}
	for range depth {
		if c := <-free; c.Err != nil {
			t.Fatal(c.Err)
		}
	}
	i := n.srv.Sessions()[0]
	if i.Commands < commands || i.BytesRead == 0 || i.BytesWritten == 0 {
		t.Errorf("counters %+v", i)
	}
}

// TestResiduals: expected transfer lengths that differ from the CDB's.
func TestResiduals(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	s := n.login(nil)
	old := bytes.Repeat([]byte{0x11}, 4096)
	fresh := bytes.Repeat([]byte{0xee}, 4096)
	for _, tc := range []struct {
		blocks, edtl    int
		residual        int64
		received, wrote int // bytes
	}{
		{1, 512, 0, 512, 512},
		{1, 1024, 512, 512, 512},
		{2, 512, -512, 512, 512},
		{1, 200, -312, 200, 0},
		{2, 700, -324, 700, 512},
		{4, 4096, 2048, 2048, 2048},
	} {
		t.Run(fmt.Sprintf("%d blocks in %d bytes", tc.blocks, tc.edtl), func(t *testing.T) {
			if _, err := n.disk.WriteAt(old, 0); err != nil {
				t.Fatal(err)
			}
			r := &initiator.Command{CDB: initiator.ReadCDB(0, uint32(tc.blocks)), In: make([]byte, tc.edtl)}
			if err := s.Do(n.ctx, r); err != nil || r.Received != tc.received || r.Residual != tc.residual {
				t.Errorf("read: %v, received %d, residual %d", err, r.Received, r.Residual)
			}
			w := &initiator.Command{CDB: initiator.WriteCDB(0, uint32(tc.blocks), false), Out: fresh[:tc.edtl]}
			if err := s.Do(n.ctx, w); err != nil || w.Residual != tc.residual {
				t.Errorf("write: %v, residual %d", err, w.Residual)
			}
			got := make([]byte, 4096)
			if _, err := n.disk.ReadAt(got, 0); err != nil {
				t.Fatal(err)
			}
			want := append(append([]byte(nil), fresh[:tc.wrote]...), old[tc.wrote:]...)
			if !bytes.Equal(got, want) {
				t.Errorf("the write did not change exactly %d bytes", tc.wrote)
			}
		})
	}
}
