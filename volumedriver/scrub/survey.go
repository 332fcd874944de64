package scrub

import (
	"context"

	"github.com/openvstorage/ovgate/volumedriver/blockmap"
	"github.com/openvstorage/ovgate/volumedriver/tlog"
)

const lbaBytes = 512

const (
	// maxTrims bounds the trims of one new SCO, far below what a footer can hold.
	maxTrims = 64 << 10
	// A TLog ends after so many SCOs or extents: some 8 MiB, which is read at once.
	maxEntries = 4 << 10
	maxExtents = 256 << 10
)

// Survey is what a segment holds.
type Survey struct {
	Live    map[uint32]int // clusters that count, by SCO number; SCOs with none are left out
	Extents int            // runs of clusters that follow each other in disk and SCO
	Trims   int            // runs of clusters that are trimmed
}

// Numbers returns how many numbers of SCOs and TLogs the segment needs if so many
// clusters are moved.
func (s *Survey) Numbers(moved, perSCO int) (scos, tlogs uint32) {
	scos = uint32((moved+perSCO-1)/perSCO + s.Trims/maxTrims + 1)
	// A full SCO cuts an extent and a kept one may be the last of a TLog.
	tlogs = uint32((s.Extents+s.Trims+int(scos))/(maxExtents/2) + (len(s.Live)+int(scos))/maxEntries + 2)
	return scos, tlogs
}

// Survey looks at a segment of the unit.
func (u *Unit) Survey(ctx context.Context, env *Env, s *Segment) (*Survey, error) {
	out := &Survey{Live: map[uint32]int{}}
	err := u.windows(ctx, env, s, func(l *layer) error {
		if !s.Bottom {
			l.eachTrim(func(uint64, uint64) { out.Trims++ })
		}
		lastCluster, last := uint64(0), blockmap.Loc(0)
		return l.eachData(func(c uint64, at blockmap.Loc) error {
			out.Live[at.Number()]++
			if !last.Mapped() || lastCluster+1 != c || !follows(last, at) {
				out.Extents++
			}
			lastCluster, last = c, at
			return nil
		})
	})
	return out, err
}

// follows reports whether b is the place after a.
func follows(a, b blockmap.Loc) bool {
	return a.Number() == b.Number() && a.Level() == b.Level() && uint32(a.Offset())+1 == uint32(b.Offset())
}

// windows calls fn with the effect of the segment on each window of the disk that it
// touches.
func (u *Unit) windows(ctx context.Context, env *Env, s *Segment, fn func(*layer) error) error {
	per := uint64(u.Cluster / lbaBytes)
	touched := make([]bool, (u.Clusters+windowClusters-1)/windowClusters)
	if len(touched) == 1 {
		touched[0] = true
	} else if err := u.each(ctx, env, s, func(e tlog.Entry) error {
		for _, x := range e.Footer.Extents {
			for w := x.LBA / per / windowClusters; w < uint64(len(touched)) && w*windowClusters*per < x.LBA+x.Length; w++ {
				touched[w] = true
			}
		}
		return nil
	}); err != nil {
		return err
	}
	for w := range touched {
		if !touched[w] {
			continue
		}
		from := uint64(w) * windowClusters
		l := newLayer(u.Level, from, min(windowClusters, u.Clusters-from))
		if err := u.each(ctx, env, s, func(e tlog.Entry) error { l.add(e.Footer); return nil }); err != nil {
			return err
		}
		if err := fn(l); err != nil {
			return err
		}
	}
	return nil
}
