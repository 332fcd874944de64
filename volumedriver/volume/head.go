package volume

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/openvstorage/ovgate/volumedriver/sco"
	"github.com/openvstorage/ovgate/volumedriver/tlog"
)

// HeadFormat is the newest head format this code reads and writes.
const HeadFormat = 1

// maxHeadBytes bounds a head object, against damage.
const maxHeadBytes = 16 << 20

const headMagic = "ovgate-head "

// Head is the record on the backend that says what makes up a vDisk (rule E5).
// The object is one line "ovgate-head FORMAT SHA256" and the head as JSON.
// Fields that this version does not use yet are named so that later versions add
// no new format: a reader refuses a head whose needs it does not know.
type Head struct {
	Format      int               `json:"format"`
	VDisk       ID                `json:"vdisk"`
	Pool        string            `json:"pool"`
	Name        string            `json:"name"`
	Labels      map[string]string `json:"labels,omitempty"`
	Size        int64             `json:"size"`        // bytes
	ClusterSize int               `json:"clusterSize"` // bytes
	Created     int64             `json:"created"`     // Unix ns

	Epoch  uint32 `json:"epoch"`
	Nonce  uint32 `json:"nonce"`
	Number uint64 `json:"number"`
	Time   int64  `json:"time"` // Unix ns, never decreasing

	LastSeq   uint64    `json:"lastSeq"`   // everything up to here is in the SCOs below
	NextSCO   uint32    `json:"nextSCO"`   // SCOs of this vDisk are numbered [1, nextSCO)
	NextTLog  uint32    `json:"nextTLog"`  // TLogs [firstTLog, nextTLog) are the run in progress,
	FirstTLog uint32    `json:"firstTLog"` // which with the runs of the past rebuilds the map
	Stored    int64     `json:"stored"`    // bytes of the SCOs
	Epochs    []Opening `json:"epochs"`    // rule E1: what is outside does not count

	// Condemned objects may be deleted once this head is committed (rule E7).
	Condemned []string `json:"condemned,omitempty"`
	// Clean: written by an orderly close; nothing was acknowledged after it.
	Clean bool `json:"clean,omitempty"`
	// Deleted: the vDisk is gone; only clean-up is left.
	Deleted bool `json:"deleted,omitempty"`

	// Reservation is the reservation state as of LastSeq (V7).
	Reservation []byte `json:"reservation,omitempty"`

	// Parent is what the log starts from; nil: an empty disk.
	Parent *Parent `json:"parent,omitempty"`
	// NextMovedSCO and NextMovedTLog are the next numbers of what a flatten or scrub
	// writes; 0: movedNumbers.
	NextMovedSCO  uint32 `json:"nextMovedSCO,omitempty"`
	NextMovedTLog uint32 `json:"nextMovedTLog,omitempty"`
	// Template: frozen; it can be cloned and not be opened.
	Template bool `json:"template,omitempty"`
	// Scrubbed is when a scrub last changed the log, Unix ns; 0: none did.
	Scrubbed int64 `json:"scrubbed,omitempty"`
	// Map is the newest checkpoint of the map on the backend.
	Map *MapRef `json:"map,omitempty"`
	// Past is where the log before the run in progress and the snapshots are.
	Past *PastRef `json:"past,omitempty"`

	// Needs names features a reader must know to use this head. Those that this version knows, encode adds where the
	// head has them; a decoded head has none of them left.
	Needs []string `json:"needs,omitempty"`
}

// Parent says in the head of a clone what the clone starts from.
type Parent struct {
	VDisk ID     `json:"vdisk"`
	Seq   uint64 `json:"seq"` // all of the parent's log up to here
	// Snapshot is the name that it had then, if it was one; for people.
	Snapshot string `json:"snapshot,omitempty"`
}

// Object names below the vPool's root.
const (
	rootName   = "ovgate.root"
	vdiskRoot  = "v/"
	headDir    = "/head/"
	scoDir     = "/sco/"
	tlogDir    = "/tlog/"
	claimDir   = "/claim/"
	mapDir     = "/map/"
	pageDir    = "/page/"
	afterNames = "~" // sorts after every character of a name
)

func vdiskPrefix(id ID) string { return vdiskRoot + id.String() }

// headName: numbers of one opening never repeat, so a name never gets other bytes.
func headName(id ID, r HeadRef) string {
	return fmt.Sprintf("%s%s%08x-%016x-%08x", vdiskPrefix(id), headDir, r.Epoch, r.Number, r.Nonce)
}

func scoName(id ID, o Opening, number uint32) string {
	return sco.Name(vdiskPrefix(id), number, o.Epoch, o.Nonce)
}

func tlogName(id ID, o Opening, number uint32) string {
	return tlog.Name(vdiskPrefix(id), number, o.Epoch, o.Nonce)
}

func claimName(id ID, epoch uint32) string {
	return fmt.Sprintf("%s%s%08x", vdiskPrefix(id), claimDir, epoch)
}

// parseHeadName reads epoch, number and nonce from an object name.
func parseHeadName(name string) (HeadRef, bool) {
	f := strings.Split(name[strings.LastIndex(name, "/")+1:], "-")
	if len(f) != 3 {
		return HeadRef{}, false
	}
	e, err1 := strconv.ParseUint(f[0], 16, 32)
	n, err2 := strconv.ParseUint(f[1], 16, 64)
	o, err3 := strconv.ParseUint(f[2], 16, 32)
	ok := errors.Join(err1, err2, err3) == nil && len(f[0]) == 8 && len(f[1]) == 16 && len(f[2]) == 8
	return HeadRef{Epoch: uint32(e), Number: n, Nonce: uint32(o)}, ok
}

// newer reports whether head r comes after o in the life of a vDisk.
func (r HeadRef) newer(o HeadRef) bool {
	return r.Epoch > o.Epoch || r.Epoch == o.Epoch && r.Number > o.Number
}

// same reports whether both name the same object.
func (r HeadRef) same(o HeadRef) bool {
	return r.Epoch == o.Epoch && r.Number == o.Number && r.Nonce == o.Nonce
}

// encode returns the object and its reference.
func (h *Head) encode() ([]byte, HeadRef, error) {
	whole := *h
	whole.Needs = append(slices.Clone(h.Needs), h.needs()...)
	body, err := json.Marshal(&whole)
	if err != nil {
		return nil, HeadRef{}, fmt.Errorf("encode head of vdisk %s: %w", h.VDisk, err)
	}
	sum := sha256.Sum256(body)
	hash := hex.EncodeToString(sum[:])
	obj := fmt.Appendf(nil, "%s%d %s\n%s\n", headMagic, h.Format, hash, body)
	return obj, HeadRef{Epoch: h.Epoch, Nonce: h.Nonce, Number: h.Number, Hash: hash}, nil
}

// decodeHead verifies a head object.
func decodeHead(b []byte) (*Head, HeadRef, error) {
	line, body, ok := bytes.Cut(b, []byte("\n"))
	var format int
	var hash string
	if n, err := fmt.Sscanf(string(line), headMagic+"%d %64s", &format, &hash); !ok || n != 2 || err != nil {
		return nil, HeadRef{}, fmt.Errorf("%w: head has no header line", ErrCorrupt)
	}
	if format > HeadFormat {
		return nil, HeadRef{}, fmt.Errorf("head has format %d, this version knows %d: %w", format, HeadFormat, ErrNewerFormat)
	}
	body = bytes.TrimSuffix(body, []byte("\n"))
	sum := sha256.Sum256(body)
	if hex.EncodeToString(sum[:]) != hash {
		return nil, HeadRef{}, fmt.Errorf("%w: head checksum", ErrCorrupt)
	}
	h := &Head{}
	if err := json.Unmarshal(body, h); err != nil {
		return nil, HeadRef{}, fmt.Errorf("%w: head: %v", ErrCorrupt, err)
	}
	h.Needs = slices.DeleteFunc(h.Needs, func(n string) bool { return slices.Contains(knownNeeds, n) })
	if len(h.Needs) > 0 {
		return nil, HeadRef{}, fmt.Errorf("head of vdisk %s needs %v: %w", h.VDisk, h.Needs, ErrNewerFormat)
	}
	if h.Format != format || format < 1 {
		return nil, HeadRef{}, fmt.Errorf("%w: head of vdisk %s: format %d in a header line that says %d", ErrCorrupt, h.VDisk, h.Format, format)
	}
	if len(h.Needs) == 0 {
		h.Needs = nil
	}
	if h.Size <= 0 || h.Size > MaxSize || !validCluster(h.ClusterSize) || len(h.Epochs) == 0 || len(h.Reservation) > MaxReservation {
		return nil, HeadRef{}, fmt.Errorf("%w: head fields of vdisk %s", ErrCorrupt, h.VDisk)
	}
	return h, HeadRef{Epoch: h.Epoch, Nonce: h.Nonce, Number: h.Number, Hash: hash}, nil
}

// knownNeeds are the features of heads that this version knows.
var knownNeeds = []string{needReservation, needPast, needParent, needTemplate, needScrub}

const (
	// needParent: a reader that does not know of parents would take what a clone
	// inherits for zeros.
	needParent = "parent"
	// needTemplate: a reader that does not know of templates would let them be written.
	needTemplate = "template"
	// needScrub: a reader that does not know of collected TLogs would take them for
	// damaged, and forget what is condemned and not deleted yet.
	needScrub = "scrub"
)

// needs returns the features that this head has.
func (h *Head) needs() []string {
	var out []string
	if len(h.Reservation) > 0 {
		out = append(out, needReservation)
	}
	if h.Past != nil {
		out = append(out, needPast)
	}
	if h.Parent != nil {
		out = append(out, needParent)
	}
	if h.Template {
		out = append(out, needTemplate)
	}
	if h.Scrubbed != 0 {
		out = append(out, needScrub)
	}
	return out
}

// epochTable is the list of openings of a vDisk, oldest first (rule E1).
type epochTable []Opening

// valid reports whether records of epoch may span the seqs [first, last].
func (t epochTable) valid(epoch uint32, first, last uint64) bool {
	for i, o := range t {
		if o.Epoch == epoch {
			return first >= o.FirstSeq && (i+1 == len(t) || last < t[i+1].FirstSeq)
		}
	}
	return false
}

// has reports whether this very opening is in the table.
func (t epochTable) has(epoch, nonce uint32) bool {
	for _, o := range t {
		if o.Epoch == epoch && o.Nonce == nonce {
			return true
		}
	}
	return false
}

// ofSCO returns the opening that wrote an SCO: the last whose numbers start at or
// below it.
func (t epochTable) ofSCO(number uint32) Opening {
	for i := len(t) - 1; i > 0; i-- {
		if t[i].FirstSCO <= number {
			return t[i]
		}
	}
	return t[0]
}

// ofTLog is ofSCO for TLogs.
func (t epochTable) ofTLog(number uint32) Opening {
	for i := len(t) - 1; i > 0; i-- {
		if t[i].FirstTLog <= number {
			return t[i]
		}
	}
	return t[0]
}

// with returns the table extended by the openings that came after it, less those
// that left nothing behind.
func (t epochTable) with(opens []Opening) epochTable {
	out := append(epochTable(nil), t...)
	for _, o := range opens {
		if n := len(out); n > 0 && o.Epoch <= out[n-1].Epoch {
			continue
		}
		for n := len(out); n > 1 && out[n-1].FirstSeq == o.FirstSeq && out[n-1].FirstSCO == o.FirstSCO && out[n-1].FirstTLog == o.FirstTLog; n-- {
			out = out[:n-1]
		}
		out = append(out, o)
	}
	return out
}

func validCluster(n int) bool {
	return n >= MinClusterSize && n <= MaxClusterSize && n&(n-1) == 0
}

// Root is the object that says whose a backend root is (rule E7).
type Root struct {
	Format  int       `json:"format"`
	Cluster string    `json:"cluster"`
	Pool    string    `json:"pool"` // vPool UUID
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
}

// RootFormat is the newest root format known.
const RootFormat = 1

// claim marks an epoch as taken; the extra fence of stores with conditional PUT.
type claim struct {
	Node  string `json:"node"`
	Nonce uint32 `json:"nonce"`
	Time  int64  `json:"time"`
}
