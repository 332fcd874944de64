package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"time"

	"github.com/openvstorage/ovgate/iscsi/initiator"
)

// VDisk measures a vDisk of some bytes over iSCSI, as a host has it. It overwrites it.
func VDisk(ctx context.Context, o initiator.Options, lun uint16, bytes int64, each time.Duration) ([]Figure, error) {
	if err := checkEach(&each); err != nil {
		return nil, err
	}
	s, err := initiator.Dial(ctx, o)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if err := s.Ready(ctx, lun); err != nil {
		return nil, err
	}
	capacity, err := s.ReadCapacity(ctx, lun)
	if err != nil {
		return nil, err
	}
	sector := int64(capacity.BlockSize)
	if sector <= 0 || bytes < minDiskBytes {
		return nil, fmt.Errorf("a vDisk of %d bytes in blocks of %d: use at least %d", bytes, sector, int64(minDiskBytes))
	}
	data := make([]byte, readers*mebi)
	if _, err := rand.Read(data); err != nil {
		return nil, err
	}
	write := func(ctx context.Context, w, size int, off int64) error {
		return again(ctx, func() error { return s.WriteAt(ctx, lun, data[w*mebi:][:size], uint64(off/sector)) })
	}
	read := func(ctx context.Context, b []byte, off int64) error {
		return again(ctx, func() error { return s.ReadAt(ctx, lun, b, uint64(off/sector)) })
	}
	var out []Figure
	add := func(name string, v func(Figure) Verdict, means map[Verdict]string, workers, size int, do func(ctx context.Context, worker, n int) error) error {
		m, err := load(ctx, workers, each, size, do)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		out = append(out, m.say(name, v(m), means))
		return nil
	}
	blocks, pages := bytes/mebi, bytes/page
	buffers := make([]byte, readers*page)
	err = errors.Join(
		add("sequential 1 MiB write, 4 at once", func(m Figure) Verdict { return least(m.Bytes, 200e6, 50e6) },
			map[Verdict]string{Good: "bulk writes are quick", Fair: "bulk writes go at the speed of the journal's disk or of the backend: see bench disk", Poor: "bulk writes are slow: see bench disk and the backend's latency in vpool performance"},
			4, mebi, func(ctx context.Context, w, n int) error {
				return write(ctx, w, mebi, (int64(w)+4*int64(n))%blocks*mebi)
			}),
		add("random 4 KiB write, one at a time", func(m Figure) Verdict { return most(m.P99, 2*time.Millisecond, 20*time.Millisecond) },
			map[Verdict]string{Good: "databases are at home", Fair: "each write waits for the journal's disk, and for its mirror: see bench disk and bench network", Poor: "the journal's disk or its mirror is too slow: see bench disk and bench network"},
			1, page, func(ctx context.Context, _, _ int) error { return write(ctx, 0, page, mrand.Int64N(pages)*page) }),
		add("random 4 KiB write, 32 at once", func(m Figure) Verdict { return least(m.Rate, 20e3, 2e3) },
			map[Verdict]string{Good: "many machines may share it", Fair: "for some machines", Poor: "writes of several machines wait for each other: see bench disk"},
			readers, page, func(ctx context.Context, w, _ int) error { return write(ctx, w, page, mrand.Int64N(pages)*page) }),
		add("random 4 KiB read, 32 at once", func(m Figure) Verdict { return least(m.Rate, 20e3, 2e3) },
			map[Verdict]string{Good: "many machines may share it", Fair: "for some machines; a read cache on a disk may help", Poor: "reads go to a slow backend: give it a read cache (read_cache)"},
			readers, page, func(ctx context.Context, w, _ int) error {
				return read(ctx, buffers[w*page:][:page], mrand.Int64N(pages)*page)
			}),
	)
	return out, err
}

// again repeats what ended with a unit attention, which is news and no failure.
func again(ctx context.Context, do func() error) error {
	for {
		err := do()
		if err == nil || !initiator.IsUnitAttention(err) || ctx.Err() != nil {
			return err
		}
	}
}
