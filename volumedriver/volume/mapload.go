package volume

import (
	"context"
	"fmt"

	"github.com/openvstorage/ovgate/volumedriver/blockmap"
	"github.com/openvstorage/ovgate/volumedriver/sco"
	"github.com/openvstorage/ovgate/volumedriver/tlog"
)

// maxTLogBytes bounds a TLog read back.
const maxTLogBytes = tlog.MaxBytes

// movedNumbers is the first number of SCOs and TLogs that hold what others held:
// apart from those that the user's writes fill, whose numbers and seqs go together.
const movedNumbers = 1 << 31

// mapLoader applies TLogs to a map.
type mapLoader struct {
	log   *logReader
	m     *blockmap.Map
	src   *source
	level uint8
	last  uint32 // newest SCO number that was applied, of those that are not moved
}

// apply applies runs in order. Within a run SCOs follow each other without gap (V4).
func (l *mapLoader) apply(ctx context.Context, runs []Run) error {
	for _, run := range runs {
		number, seq := uint32(0), uint64(0)
		for n := run.First; n < run.End; n++ {
			entries, err := l.log.counted(ctx, run, n)
			if err != nil {
				return err
			}
			for _, e := range entries {
				f := e.Footer
				if number != 0 && run.Epoch == 0 && (f.Number != number+1 || f.FirstSeq != seq+1) {
					return fmt.Errorf("vdisk %s: %w: sco %d is missing from the TLogs", l.log.id, ErrCorrupt, number+1)
				}
				number, seq = f.Number, f.LastSeq
				l.add(e)
			}
		}
	}
	return nil
}

// add applies one SCO.
func (l *mapLoader) add(e tlog.Entry) {
	f := e.Footer
	applyFooter(l.m, f, l.level)
	l.note(f.Number)
	l.src.scos.add(f.Number, l.log.p.origin(l.log.id, f.Epoch, f.Nonce), f.Clusters, e.Bytes)
}

// note keeps the newest number.
func (l *mapLoader) note(number uint32) {
	if number < movedNumbers {
		l.last = max(l.last, number)
	}
}

// complete asserts that the SCOs end where the head says (V4).
func (l *mapLoader) complete(h *Head) error {
	if h.NextTLog > h.FirstTLog && l.last+1 != h.NextSCO || l.last >= h.NextSCO {
		return fmt.Errorf("vdisk %s: %w: TLogs and head disagree on the number of SCOs", l.log.id, ErrCorrupt)
	}
	return nil
}

// applyFooter puts what an SCO maps into a base map (O1: trims, then data).
func applyFooter(m *blockmap.Map, f *sco.Footer, level uint8) {
	per := uint64(f.Cluster / lbaBytes)
	for _, e := range f.Extents {
		if e.Kind != sco.KindData {
			m.Clear(e.LBA/per, e.Length/per)
		}
	}
	for _, e := range f.Extents {
		if e.Kind != sco.KindData {
			continue
		}
		for k := range e.Length / per {
			if c := e.LBA/per + k; c < m.Clusters() {
				m.Set(c, blockmap.MakeLoc(f.Number, level, uint16(uint64(e.First)+k)))
			}
		}
	}
}
