package volume

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/openvstorage/ovgate/volumedriver/journal"
)

// A snapshot is a journal record (rule E6, V8). Making one costs one append: the
// record closes its batch, so the SCO that ends with its seq is the snapshot. It
// exists, durably, when the append is; the head that covers its seq carries it to
// the backend later. Deleting one is a record too.

const (
	// MaxSnapshotName bounds a snapshot's name, in bytes.
	MaxSnapshotName = 255
	// MaxSnapshotLabels bounds the labels of a snapshot, in bytes of names and
	// values together; the original's bound for its metadata.
	MaxSnapshotLabels = 4096
	// maxPinBytes bounds what all snapshots of a vDisk take in its past object,
	// which has other things to hold.
	maxPinBytes = maxPastBytes / 2
	// markRoom is how much longer a mark can get between its check and its record:
	// the digits of a size.
	markRoom = 64
)

// mark is what a pin extent says, as JSON: a snapshot that is made, or the id of
// one that is deleted.
type mark struct {
	Pin  *Pin `json:"pin,omitempty"`
	Drop *ID  `json:"drop,omitempty"`

	seq    uint64
	forced bool
	meet   *meeting // of a group; nil: alone
}

// SnapshotSpec describes a snapshot to make.
type SnapshotSpec struct {
	ID     ID     // zero: drawn
	Name   string // unique on the vDisk, 1-255 bytes of UTF-8 without control characters
	Labels map[string]string
	// Consistent: whoever asks has made the data of applications or file systems
	// consistent. A snapshot without is as a power cut would leave them.
	Consistent bool
	Sticky     bool // deleted only with force; a rollback past it is refused
	Automatic  bool // made by a schedule
}

// Snapshot is a point of a vDisk that is kept.
type Snapshot struct {
	ID         ID
	Name       string
	Labels     map[string]string
	Consistent bool
	Sticky     bool
	Automatic  bool
	Time       time.Time
	Seq        uint64 // it holds the effect of all writes up to here
	Size       int64  // of the vDisk then, bytes
	// Group is how many vDisks have a snapshot with this ID, made at one moment; 0: it
	// is of no group.
	Group int
	// InBackend: a committed head covers it, so it survives the loss of the node and
	// can be cloned and rolled back to without waiting.
	InBackend bool
}

func (p *Pin) snapshot(committed uint64) Snapshot {
	group := 0
	if p.Group != nil {
		group = p.Group.Size
	}
	return Snapshot{Group: group, ID: p.ID, Name: p.Name, Labels: maps.Clone(p.Labels), Consistent: p.Consistent, Sticky: p.Sticky,
		Automatic: p.Automatic, Time: time.Unix(0, p.Time), Seq: p.Seq, Size: p.Size, InBackend: p.Seq <= committed}
}

// CheckSnapshot says whether a snapshot like this can be made; ErrInvalid if not.
func CheckSnapshot(s SnapshotSpec) error {
	switch {
	case s.Name == "" || len(s.Name) > MaxSnapshotName:
		return fmt.Errorf("%w: a snapshot name has 1 to %d bytes", ErrInvalid, MaxSnapshotName)
	case !utf8.ValidString(s.Name) || slices.ContainsFunc([]rune(s.Name), unicode.IsControl):
		return fmt.Errorf("%w: snapshot name %q is not UTF-8 without control characters", ErrInvalid, s.Name)
	}
	n := 0
	for k, v := range s.Labels {
		n += len(k) + len(v)
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			return fmt.Errorf("%w: label %q of snapshot %q is not UTF-8", ErrInvalid, k, s.Name)
		}
	}
	if n > MaxSnapshotLabels {
		return fmt.Errorf("%w: labels of snapshot %q have %d bytes, at most %d", ErrInvalid, s.Name, n, MaxSnapshotLabels)
	}
	return nil
}

// Snapshot makes a snapshot of what is acknowledged now, durable on return like a
// write. Asking again with the ID and name of one that is there returns that one.
// Errors: ErrInvalid, ErrExists for a name in use, those of a write. If ctx ends
// first the snapshot may be made or not.
func (v *Volume) Snapshot(ctx context.Context, s SnapshotSpec) (Snapshot, error) {
	if err := CheckSnapshot(s); err != nil {
		return Snapshot{}, fmt.Errorf("vdisk %s: %w", v.id, err)
	}
	if s.ID == (ID{}) {
		var err error
		if s.ID, err = NewID(v.host.o.Rand); err != nil {
			return Snapshot{}, err
		}
	}
	pin := &Pin{ID: s.ID, Name: s.Name, Labels: maps.Clone(s.Labels), Consistent: s.Consistent, Sticky: s.Sticky, Automatic: s.Automatic}
	if err := v.submitMark(ctx, &mark{Pin: pin}); err != nil {
		return Snapshot{}, err
	}
	v.pinMu.Lock()
	defer v.pinMu.Unlock()
	if p := v.findPin(func(p *Pin) bool { return p.ID == s.ID }); p != nil {
		return p.snapshot(v.up.committed.Load()), nil
	}
	return Snapshot{}, fmt.Errorf("vdisk %s: snapshot %q was deleted meanwhile: %w", v.id, s.Name, ErrNotFound)
}

// DeleteSnapshot deletes a snapshot by name or UUID, durably; one that is not there
// is no error. Clones of it live on: what they need stays until they are gone. A
// sticky one is refused without force. The space comes back with a scrub.
func (v *Volume) DeleteSnapshot(ctx context.Context, name string, force bool) error {
	v.pinMu.Lock()
	p := v.findPin(named(name))
	v.pinMu.Unlock()
	if p == nil {
		return nil
	}
	return v.submitMark(ctx, &mark{Drop: &p.ID, forced: force})
}

// Snapshots returns the snapshots, oldest first.
func (v *Volume) Snapshots() []Snapshot {
	committed := v.up.committed.Load()
	v.pinMu.Lock()
	defer v.pinMu.Unlock()
	out := make([]Snapshot, len(v.pins))
	for i, p := range v.pins {
		out[i] = p.snapshot(committed)
	}
	return out
}

// named matches a snapshot by name or UUID.
func named(name string) func(*Pin) bool {
	return func(p *Pin) bool { return p.Name == name || p.ID.String() == name }
}

// findPin returns the first snapshot that matches, or nil; pinMu is held.
func (v *Volume) findPin(match func(*Pin) bool) *Pin {
	if i := slices.IndexFunc(v.pins, match); i >= 0 {
		return v.pins[i]
	}
	return nil
}

// markDone completes a mark's request for whoever still waits.
type markDone chan error

func (d markDone) Complete(r *Request) { d <- r.Err }

// submitMark takes a mark through the path of a write.
func (v *Volume) submitMark(ctx context.Context, m *mark) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := v.writeError(); err != nil {
		return err
	}
	if err := v.enter(); err != nil {
		return err
	}
	done := make(markDone, 1)
	r := &Request{Kind: reqPin, Done: done}
	r.st.start = v.host.o.Clock.Now()
	r.st.mark = m
	// Marks wait for each other like writes of one range, beyond every disk: so what
	// prepareMark sees of the snapshots stays true until the record is applied.
	r.st.first = journal.PinLBA * lbaBytes / uint64(v.cluster)
	r.st.end = r.st.first + 1
	if v.locks.acquire(r) {
		v.prepare(r)
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("vdisk %s: snapshot: outcome unknown: %w", v.id, ctx.Err())
	}
}

// prepareMark checks a mark; false: there is nothing to record.
func (v *Volume) prepareMark(m *mark) (bool, error) {
	v.pinMu.Lock()
	defer v.pinMu.Unlock()
	if m.Drop != nil {
		p := v.findPin(func(p *Pin) bool { return p.ID == *m.Drop })
		if p != nil && p.Sticky && !m.forced {
			return false, fmt.Errorf("vdisk %s: %w: snapshot %q is sticky; force its deletion if it is to go", v.id, ErrInUse, p.Name)
		}
		return p != nil, nil
	}
	bytes := 0
	for _, p := range v.pins {
		switch {
		case p.ID == m.Pin.ID && p.Name == m.Pin.Name && m.meet == nil:
			return false, nil
		case p.ID == m.Pin.ID || p.Name == m.Pin.Name:
			return false, fmt.Errorf("vdisk %s: snapshot %q (%s): %w; use another name, or delete that one", v.id, p.Name, p.ID, ErrExists)
		}
		bytes += p.bytes()
	}
	if bytes+m.Pin.bytes() > maxPinBytes {
		return false, fmt.Errorf("vdisk %s: %w: its %d snapshots take all the room there is for them; delete some", v.id, ErrInvalid, len(v.pins))
	}
	b, err := json.Marshal(m)
	if err == nil && len(b) > journal.MaxPin-markRoom {
		err = fmt.Errorf("%w: name and labels of snapshot %q are too long", ErrInvalid, m.Pin.Name)
	}
	return true, err
}

// bytes is about what a snapshot takes in a past object.
func (p *Pin) bytes() int {
	n := 256 + 2*len(p.Name)
	for k, v := range p.Labels {
		n += 8 + 2*len(k) + 2*len(v)
	}
	return n
}

// encodeMark makes the extent of a mark that is about to be appended. The size is
// that of now: what was written before was within it.
func (v *Volume) encodeMark(r *Request) error {
	if p := r.st.mark.Pin; p != nil {
		p.Size = v.Size()
	}
	b, err := json.Marshal(r.st.mark)
	if err != nil {
		return err
	}
	data, err := journal.EncodePin(b, v.cluster)
	if err != nil {
		return err
	}
	r.Data = b
	r.st.nExtents, r.st.nParts, r.st.bytes = 1, 1, len(data)
	r.st.extents[0] = journal.Extent{LBA: journal.PinLBA, Length: uint64(len(data)) / lbaBytes, Kind: journal.KindPin}
	r.st.parts[0] = data
	return nil
}

func decodeMark(b []byte) (*mark, error) {
	m := &mark{}
	if err := json.Unmarshal(b, m); err != nil || (m.Pin == nil) == (m.Drop == nil) {
		return nil, fmt.Errorf("%w: pin record: %v", ErrCorrupt, err)
	}
	return m, nil
}

// applyMark puts a durable mark into effect and reports whether it closes its
// batch; mapMu is held. What it says was verified.
func (v *Volume) applyMark(b []byte, seq uint64, time int64) bool {
	m, err := decodeMark(b)
	if err != nil {
		v.fail(StateFailed, err)
		return false
	}
	m.seq = seq
	if m.Pin != nil {
		m.Pin.Seq, m.Pin.Time = seq, time
	}
	v.marks = append(v.marks, m)
	v.pinMu.Lock()
	v.pins = m.change(v.pins)
	v.pinMu.Unlock()
	return m.Pin != nil
}

// change returns the snapshots after a mark; pins is not used again.
func (m *mark) change(pins []*Pin) []*Pin {
	if m.Pin != nil {
		return append(pins, m.Pin)
	}
	return slices.DeleteFunc(pins, func(p *Pin) bool { return p.ID == *m.Drop })
}

// pinned returns the past of a head that covers seq, and whether it differs from
// the committed one.
func (u *uploader) pinned(seq uint64) (*Past, bool) {
	v := u.v
	past := u.past
	changed := false
	v.mapMu.RLock()
	defer v.mapMu.RUnlock()
	for _, m := range v.marks {
		if m.seq > seq {
			break
		}
		if !changed {
			next := *past
			next.Pins = slices.Clone(past.Pins)
			past, changed = &next, true
		}
		if m.Pin != nil {
			past.Pins = append(past.Pins, *m.Pin)
		} else {
			past.Pins = slices.DeleteFunc(past.Pins, func(p Pin) bool { return p.ID == *m.Drop })
		}
	}
	return past, changed
}

// level is the vDisk's place in its chain.
func (v *Volume) level() uint8 { return uint8(len(v.chain) - 1) }

// dropMarks forgets the marks that the committed head covers.
func (v *Volume) dropMarks(seq uint64) {
	v.mapMu.Lock()
	defer v.mapMu.Unlock()
	v.marks = slices.DeleteFunc(v.marks, func(m *mark) bool { return m.seq <= seq })
}
