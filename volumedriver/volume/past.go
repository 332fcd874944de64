package volume

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/backend"
)

// PastFormat is the newest format of the past object that this code reads and writes.
const PastFormat = 1

// maxPastBytes bounds a past object: some 200 000 snapshots. A snapshot beyond it is
// refused, since every one rewrites the object.
const maxPastBytes = 64 << 20

const (
	pastMagic = "ovgate-past "
	pastDir   = "/past/"
	// needPast is what a head with a past needs its reader to know: one that does
	// not would take the wrong TLogs for the map and forget the snapshots.
	needPast = "past"
)

// Past is what heads refer to rather than repeat: the part of the log before the
// run of TLogs in progress, and the snapshots. It changes when a snapshot is made
// or deleted, with a rollback and with a flatten. The object, v/ID/past/..., is
// immutable, one line "ovgate-past FORMAT SHA256" and the past as JSON. A vDisk
// without any of this has none.
//
// The log of a vDisk is Runs, in order, and then the run in progress: the head's
// TLogs from FirstTLog to NextTLog. Applied in this order they give the map. A
// snapshot, and what a clone starts from, is a seq: the prefix of the log up to the
// end of the SCO whose last seq it is. Seqs never repeat, so a seq names the same
// prefix whatever was rolled back since.
//
// A rollback cuts the log: TLogs and SCOs above the cut are left behind, on the
// backend and in Before, where a rollback or clone to a moment before it finds
// them. Nothing deletes them but a scrub, once no clone and no history needs them.
// A scrub replaces the part of the log between two points that are kept by a run of
// collected TLogs with the same range of seqs, in every line that has it.
type Past struct {
	Format int `json:"format"`
	VDisk  ID  `json:"vdisk"`
	// FirstSeq is the first seq of the run in progress; 0: 1.
	FirstSeq uint64 `json:"firstSeq,omitempty"`
	Runs     []Run  `json:"runs,omitempty"`
	Before   []Line `json:"before,omitempty"` // oldest first
	Pins     []Pin  `json:"pins,omitempty"`   // in seq order
}

// Run is a part of a log: of the TLogs [First, End) the SCOs whose seqs are in
// [FirstSeq, LastSeq], each TLog having at least one. Seqs 0 to 0: what a clone
// has of its parent, copied by a flatten.
type Run struct {
	First    uint32 `json:"first"`
	End      uint32 `json:"end"`
	FirstSeq uint64 `json:"firstSeq"`
	LastSeq  uint64 `json:"lastSeq"`
	// Epoch and Nonce are those of the opening that wrote the TLogs of a run that was
	// moved (flatten, scrub); 0: what the epoch table says by their numbers.
	Epoch uint32 `json:"epoch,omitempty"`
	Nonce uint32 `json:"nonce,omitempty"`
}

// Line is the whole log as it was up to a rollback.
type Line struct {
	Until int64 `json:"until"` // time of the rollback, Unix ns
	Runs  []Run `json:"runs"`
}

// Pin is a snapshot as past and journal hold it.
type Pin struct {
	ID         ID                `json:"id"`
	Name       string            `json:"name"`
	Labels     map[string]string `json:"labels,omitempty"`
	Consistent bool              `json:"consistent,omitempty"`
	Sticky     bool              `json:"sticky,omitempty"`
	Automatic  bool              `json:"automatic,omitempty"`
	Time       int64             `json:"time,omitempty"` // Unix ns
	Seq        uint64            `json:"seq,omitempty"`
	Size       int64             `json:"size"` // of the vDisk then, bytes
	Group      *PinGroup         `json:"group,omitempty"`
}

// PastRef is what a head says of its past.
type PastRef struct {
	Epoch  uint32 `json:"epoch"` // with Nonce and Number: of the first head with it
	Nonce  uint32 `json:"nonce"`
	Number uint64 `json:"number"`
	Hash   string `json:"hash"` // hex sha-256 of the JSON
	Pins   int    `json:"pins"`
}

func pastName(id ID, r PastRef) string {
	return fmt.Sprintf("%s%s%08x-%016x-%08x", vdiskPrefix(id), pastDir, r.Epoch, r.Number, r.Nonce)
}

// empty reports whether a head needs no past object.
func (p *Past) empty() bool {
	return p.FirstSeq <= 1 && len(p.Runs) == 0 && len(p.Before) == 0 && len(p.Pins) == 0
}

// encode returns the object and what head number of an opening, the first with it,
// says of it; nil if it needs none.
func (p *Past) encode(o Opening, number uint64) (*PastRef, []byte, error) {
	if p.empty() {
		return nil, nil, nil
	}
	body, err := json.Marshal(p)
	if err != nil {
		return nil, nil, fmt.Errorf("encode past of vdisk %s: %w", p.VDisk, err)
	}
	sum := sha256.Sum256(body)
	ref := &PastRef{Epoch: o.Epoch, Nonce: o.Nonce, Number: number, Hash: hex.EncodeToString(sum[:]), Pins: len(p.Pins)}
	obj := fmt.Appendf(nil, "%s%d %s\n%s\n", pastMagic, p.Format, ref.Hash, body)
	if len(obj) > maxPastBytes {
		return nil, nil, fmt.Errorf("past of vdisk %s: %w: %d bytes, at most %d", p.VDisk, ErrInvalid, len(obj), maxPastBytes)
	}
	return ref, obj, nil
}

// decodePast verifies a past object against what the head says of it.
func decodePast(id ID, ref PastRef, b []byte) (*Past, error) {
	p, hash, err := InspectPast(b)
	switch {
	case err != nil:
		return nil, err
	case hash != ref.Hash:
		return nil, fmt.Errorf("%w: past is not the one that the head names", ErrCorrupt)
	case p.VDisk != id || len(p.Pins) != ref.Pins:
		return nil, fmt.Errorf("%w: past fields of vdisk %s", ErrCorrupt, id)
	}
	return p, nil
}

// InspectPast verifies a past object as far as it can be by itself; a head has the
// hash that it returns, in hex. Errors: ErrCorrupt, or that the format is a newer one.
func InspectPast(b []byte) (past *Past, sha string, err error) {
	line, body, ok := bytes.Cut(b, []byte("\n"))
	var format int
	var hash string
	if n, err := fmt.Sscanf(string(line), pastMagic+"%d %64s", &format, &hash); !ok || n != 2 || err != nil {
		return nil, "", fmt.Errorf("%w: past has no header line", ErrCorrupt)
	}
	if format > PastFormat {
		return nil, "", fmt.Errorf("past has format %d, this version knows %d: %w", format, PastFormat, ErrNewerFormat)
	}
	body = bytes.TrimSuffix(body, []byte("\n"))
	if sum := sha256.Sum256(body); hex.EncodeToString(sum[:]) != hash {
		return nil, "", fmt.Errorf("%w: past checksum", ErrCorrupt)
	}
	p := &Past{}
	if err := json.Unmarshal(body, p); err != nil {
		return nil, "", fmt.Errorf("%w: past: %v", ErrCorrupt, err)
	}
	id := p.VDisk
	if p.Format != format || format < 1 {
		return nil, "", fmt.Errorf("%w: past fields of vdisk %s", ErrCorrupt, id)
	}
	for _, l := range append(slices.Clone(p.Before), Line{Runs: p.Runs}) {
		for _, r := range l.Runs {
			if r.First >= r.End || r.FirstSeq > r.LastSeq {
				return nil, "", fmt.Errorf("%w: past of vdisk %s: run %+v", ErrCorrupt, id, r)
			}
		}
	}
	if !slices.IsSortedFunc(p.Pins, func(a, b Pin) int { return compareSeq(a.Seq, b.Seq) }) {
		return nil, "", fmt.Errorf("%w: past of vdisk %s: snapshots out of order", ErrCorrupt, id)
	}
	return p, hash, nil
}

func compareSeq(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func localPast(id ID, r PastRef) string {
	return fmt.Sprintf("%s/past-%08x-%016x-%08x", stateDir(id), r.Epoch, r.Number, r.Nonce)
}

// saveLocalPast keeps a copy for an open without the backend, under a name of its
// own until the head that needs it is saved; like that of the head it may be lost.
func saveLocalPast(host *Host, p *Past, ref *PastRef) {
	if ref == nil {
		return
	}
	_, obj, err := p.encode(Opening{Epoch: ref.Epoch, Nonce: ref.Nonce}, ref.Number)
	if err == nil {
		err = host.o.FS.MkdirAll(stateDir(p.VDisk))
	}
	if err == nil {
		err = blockfs.WriteFile(host.o.FS, localPast(p.VDisk, *ref), obj)
	}
	if err != nil {
		host.o.Log.Warn("local copy of the past not written", "vdisk", p.VDisk.String(), "err", err)
	}
}

// dropLocalPast removes the copy that no head needs any more.
func dropLocalPast(host *Host, id ID, ref *PastRef) {
	if ref == nil {
		return
	}
	if err := host.o.FS.Remove(localPast(id, *ref)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		host.o.Log.Warn("local copy of the past not removed", "vdisk", id.String(), "err", err)
	}
}

// getPast reads the past that a head refers to: the local copy, which its hash
// proves right, or the object.
func (p *Pool) getPast(ctx context.Context, h *Head) (*Past, error) {
	if past, err := p.localPast(h); err == nil {
		return past, nil
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	var past *Past
	err := p.fetch(ctx, pastName(h.VDisk, *h.Past), maxPastBytes, func(b []byte) (err error) {
		past, err = decodePast(h.VDisk, *h.Past, b)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("vdisk %s: past of head %d: %w", h.VDisk, h.Number, err)
	}
	return past, nil
}

// localPast returns the past of a head if it can be had without the backend.
func (p *Pool) localPast(h *Head) (*Past, error) {
	if h.Past == nil {
		return &Past{Format: PastFormat, VDisk: h.VDisk}, nil
	}
	b, err := blockfs.ReadFile(p.host.o.FS, localPast(h.VDisk, *h.Past), maxPastBytes)
	if err != nil {
		return nil, err
	}
	return decodePast(h.VDisk, *h.Past, b)
}

// stalePasts lists past objects that heads before ref referred to, or were to refer
// to, and this one does not.
func (p *Pool) stalePasts(ctx context.Context, h *Head, ref HeadRef) ([]string, error) {
	if h.Past == nil { // what the head itself condemned may be there yet
		return slices.DeleteFunc(slices.Clone(h.Condemned), func(n string) bool { return !strings.Contains(n, pastDir) }), nil
	}
	var out []string
	for after := ""; ; {
		page, err := p.list(ctx, vdiskPrefix(h.VDisk)+pastDir, after, 1000)
		if err != nil {
			return nil, err
		}
		for _, o := range page {
			after = o.Name
			if r, ok := parseHeadName(o.Name); ok && ref.newer(r) && o.Name != pastName(h.VDisk, *h.Past) {
				out = append(out, o.Name)
			}
		}
		if len(page) < 1000 {
			return out, nil
		}
	}
}

// state is what a committed head and its past say of a vDisk.
type state struct {
	head *Head
	past *Past
	ref  HeadRef
}

// log returns the whole log, the run in progress included.
func (s *state) log() []Run {
	runs := slices.Clone(s.past.Runs)
	if s.head.NextTLog > s.head.FirstTLog {
		runs = append(runs, Run{First: s.head.FirstTLog, End: s.head.NextTLog, FirstSeq: max(s.past.FirstSeq, 1), LastSeq: s.head.LastSeq})
	}
	return runs
}

// line identifies what a map has before the run in progress: two maps with the same
// line differ by TLogs of that run alone. parent is the line of the map that this
// one starts from, level the vDisk's place in the chain. Zero for a vDisk that has
// no parent and only that run.
func (s *state) line(parent [16]byte, level int) [16]byte {
	if len(s.past.Runs) == 0 && s.head.FirstTLog <= 1 && s.head.Parent == nil && level == 0 {
		return [16]byte{}
	}
	return fingerprint(s.past.Runs, s.head.FirstTLog, s.head.Parent, parent, level)
}

// fingerprint returns 16 bytes that are the same for the same values.
func fingerprint(values ...any) (out [16]byte) {
	b, _ := json.Marshal(values)
	sum := sha256.Sum256(b)
	copy(out[:], sum[:])
	return out
}

// stateOf returns the committed state of a vDisk of this vPool: open here, open
// elsewhere or closed. A head that is superseded while it is read is read anew.
func (p *Pool) stateOf(ctx context.Context, id ID) (*state, Record, error) {
	var err error
	for range maxClaims {
		var rec Record
		if rec, err = p.host.o.Registry.Load(ctx, id); err != nil {
			return nil, rec, err
		}
		if rec.Head.Number == 0 {
			return nil, rec, fmt.Errorf("vdisk %s: creation did not finish: %w", id, ErrNotFound)
		}
		if v := p.Volume(id); v != nil {
			if s := v.committedState.Load(); s != nil && s.ref == rec.Head {
				return s, rec, nil
			}
		}
		var s *state
		if s, err = p.readState(ctx, id, rec.Head); err == nil {
			return s, rec, nil
		}
		if !errors.Is(err, backend.ErrNotExist) {
			break
		}
	}
	if errors.Is(err, ErrCorrupt) {
		return nil, Record{}, err
	}
	return nil, Record{}, fmt.Errorf("vdisk %s: %w: %w", id, ErrBackend, err)
}

func (p *Pool) readState(ctx context.Context, id ID, ref HeadRef) (*state, error) {
	h, got, err := p.getHead(ctx, id, ref)
	if err != nil {
		return nil, err
	}
	past, err := p.getPast(ctx, h)
	if err != nil {
		return nil, err
	}
	return &state{h, past, got}, nil
}
