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
	pages *pageStore // takes what does not fit in memory
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
				if err := l.add(ctx, e); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// add applies one SCO.
func (l *mapLoader) add(ctx context.Context, e tlog.Entry) error {
	f := e.Footer
	if err := stageFooter(ctx, l.m, f); err != nil {
		return fmt.Errorf("vdisk %s: %w", l.log.id, err)
	}
	applyFooter(l.m, f, l.level)
	l.m.Unstage()
	if l.log.p.host.mapMemory.Tight() {
		if err := l.m.Spill(l.pages); err != nil && l.log.p.host.mapMemory.Full() {
			return fmt.Errorf("vdisk %s: its map does not fit in memory: %w", l.log.id, err)
		}
	}
	l.note(f.Number)
	l.src.scos.add(f.Number, l.log.p.origin(l.log.id, f.Epoch, f.Nonce), f.Clusters, e.Bytes)
	return nil
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

// stageFooter reads the pages that applyFooter changes in part.
func stageFooter(ctx context.Context, m *blockmap.Map, f *sco.Footer) error {
	per := uint64(f.Cluster / lbaBytes)
	for _, e := range f.Extents {
		if err := m.Stage(ctx, e.LBA/per, e.Length/per, false); err != nil {
			return err
		}
	}
	return nil
}

// applyFooter puts what an SCO maps into a base map (O1: trims, then data).
func applyFooter(m *blockmap.Map, f *sco.Footer, level uint8) {
	applyRange(m, f, level, 0, m.Clusters())
}

// applyRange is applyFooter for the clusters [from, to), and tells whether there was
// something to do.
func applyRange(m *blockmap.Map, f *sco.Footer, level uint8, from, to uint64) (did bool) {
	per := uint64(f.Cluster / lbaBytes)
	to = min(to, m.Clusters())
	clip := func(e *sco.Extent) (c, n uint64) {
		c, end := max(e.LBA/per, from), min((e.LBA+e.Length)/per, to)
		return c, max(end, c) - c
	}
	for i := range f.Extents {
		if e := &f.Extents[i]; e.Kind != sco.KindData {
			c, n := clip(e)
			m.Clear(c, n)
			did = did || n > 0
		}
	}
	for i := range f.Extents {
		e := &f.Extents[i]
		if e.Kind != sco.KindData {
			continue
		}
		if c, n := clip(e); n > 0 {
			m.SetRun(c, n, blockmap.MakeLoc(f.Number, level, uint16(uint64(e.First)+c-e.LBA/per)))
			did = true
		}
	}
	return did
}
