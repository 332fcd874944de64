package dtl

import (
	"testing"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/volumedriver/journal"
)

// TestCrash: whenever the power of the peer fails, and whatever becomes of what was not
// synced, the copy that comes up under the generation that was told has all that was
// answered and not released (D1, D2, D5).
func TestCrash(t *testing.T) {
	fsys := blockfs.NewMem()
	p := startPeer(t, fsys, clock.Real{}, 1, nil)
	c := startClient(t, clock.Real{}, "node-1", p.dial)
	type moment struct {
		fs               *blockfs.Mem
		gen              uint64
		released, answer uint64
	}
	var moments []moment
	m := mirror(t, c, diskA, 1, 1)
	s := newSource(t, diskA, 1, 1)
	asked := uint64(0) // released at most
	look := func(kind blockfs.CrashConfig) {
		answered, err := m.Durable()
		if err != nil {
			t.Fatal(err)
		}
		moments = append(moments, moment{fsys.Crash(kind), m.Generation(), asked, answered})
	}
	for i := range 60 {
		s.send(m, 4, 1+i%9)
		look(blockfs.CrashConfig{Unsynced: blockfs.DropAll})
		switch i % 10 {
		case 7:
			last := s.log.NextSeq() - 1
			mustWait(t, m, last)
			asked = last - 3
			m.Release(asked)
			look(blockfs.CrashConfig{Unsynced: blockfs.KeepAll})
		case 9:
			last := s.log.NextSeq() - 1
			mustWait(t, m, last)
			if i%20 == 19 {
				m = mirror(t, c, diskA, 1, last+1)
				asked = last
			}
		}
		look(blockfs.CrashConfig{Unsynced: blockfs.KeepAll})
	}
	mustWait(t, m, s.log.NextSeq()-1)
	for i, at := range moments {
		pool := openPool(t, at.fs, 64, newRand(2))
		q, err := NewServer(ServerOptions{Cluster: "c1", Node: "node-2", FS: at.fs, Dir: "dtl", Pool: pool, Clock: clock.Real{}, Rand: newRand(3)})
		if err != nil {
			t.Fatalf("moment %d: %v", i, err)
		}
		k := q.copies[diskA]
		if k == nil || k.log == nil {
			t.Fatalf("moment %d: the copy is gone", i)
		}
		if k.state.Generation != at.gen {
			t.Fatalf("moment %d: generation %x, told %x", i, k.state.Generation, at.gen)
		}
		if k.state.Released > at.released && at.released > 0 || k.durable() < at.answer {
			t.Fatalf("moment %d: seqs above %d to %d, want those above %d to %d", i, k.state.Released, k.durable(), at.released, at.answer)
		}
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
		r, err := journal.Recover(pool, diskA, max(at.released, k.state.Released)+1, k.valid)
		if err != nil {
			t.Fatalf("moment %d: %v", i, err)
		}
		if r.LastSeq < at.answer {
			t.Fatalf("moment %d: the tail ends at %d, answered %d", i, r.LastSeq, at.answer)
		}
		r.Abandon()
		pool.Close()
	}
}
