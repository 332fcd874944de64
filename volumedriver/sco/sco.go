// Package sco is the format of Storage Container Objects: the immutable objects
// that hold a vDisk's data on the backend, in the order it was written.
//
// # Object
//
//	| group 0 | group 1 | ... | group n | sums | footer | trailer |
//
//	group    up to 64 KiB of whole clusters, then the checksum (clustersum, u32)
//	         of each of them. All but the last group are full, so one range
//	         request for a group reads and verifies any of its clusters.
//	sums     the same checksums in one piece, by cluster: with them at hand a random
//	         read fetches its clusters alone, where a store makes small reads cheap
//	footer   what the object maps, see below; a TLog repeats the footers of a run
//	         of SCOs, so that a map is rebuilt without reading data
//	trailer  32 bytes: footer length u32 | crc32c of sums and footer u32 | xxh3 u64
//	         of all groups | 0 u64 | magic "OVGSCO01"
//
// Footer, little-endian, 128 bytes and 32 per extent:
//
//	  0 version u16 = 1 | 2 flags u16 | 4 cluster u32 bytes | 8 vdisk 16 bytes
//	 24 epoch u32 | 28 nonce u32 | 32 number u32 | 36 clusters u32
//	 40 first seq u64 | 48 last seq u64 | 56 first time i64 | 64 last time i64
//	 72 extents u32 | 76 reserved 52 bytes
//	extent: lba u64 | length u64 (512 B) | kind u8 | 0 (3 bytes) |
//	        first cluster u32 | source u64 (a scrubbed extent's old location, else 0)
//
// # Invariants
//
//	O1  An SCO holds the effect of the seqs [first, last]: its trims apply first,
//	    then its data, in any order; data extents do not overlap.
//	O2  The bytes depend only on what is stored: encoding the same content again
//	    gives the same object, so a retried upload changes nothing (rule E1).
//	O3  A reader believes a cluster only if its checksum verifies for the vDisk and
//	    address it was looked up by; never because of where it was found.
package sco

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/zeebo/xxh3"

	"github.com/openvstorage/ovgate/volumedriver/clustersum"
)

const (
	// GroupData is the data of a full group, in bytes.
	GroupData = 64 << 10
	// SumBytes is the size of a cluster's checksum.
	SumBytes = 4

	version      = 1
	fixedFooter  = 128
	extentBytes  = 32
	trailerBytes = 32
	lbaBytes     = 512
	// maxExtents bounds what a footer may claim, against damage.
	maxExtents = 1 << 20
	// MaxOverhead bounds what an object has beside its data and checksums.
	MaxOverhead = fixedFooter + trailerBytes + maxExtents*extentBytes
)

// FormatVersion is the newest SCO format that this code reads and writes.
const FormatVersion = version

var magic = [8]byte{'O', 'V', 'G', 'S', 'C', 'O', '0', '1'}

// Errors of decoding.
var (
	ErrCorrupt     = errors.New("sco: damaged object")
	ErrNewerFormat = errors.New("sco: newer format: upgrade ovgate")
)

// Kind is what an extent does.
type Kind uint8

// Kinds. Zero and trim both map to "no data"; the log keeps which it was.
const (
	KindData Kind = iota + 1
	KindZero
	KindTrim
)

// Extent is a range that an SCO maps. LBA and Length are in 512-byte units.
type Extent struct {
	LBA    uint64
	Length uint64
	Kind   Kind
	First  uint32 // data: index of its first cluster in the object
	Source uint64 // data: location it was scrubbed from; 0: from the user
}

// Footer describes an SCO.
type Footer struct {
	Cluster   uint32 // bytes
	VDisk     [16]byte
	Epoch     uint32
	Nonce     uint32
	Number    uint32
	Clusters  uint32
	FirstSeq  uint64
	LastSeq   uint64
	FirstTime int64 // Unix ns of the oldest and newest write
	LastTime  int64
	Extents   []Extent // trims and zeros first, then data by LBA
}

// Name returns the name of an SCO below the directory of its vDisk: by number, and
// epoch and nonce of the opening that wrote it.
func Name(dir string, number, epoch, nonce uint32) string {
	return fmt.Sprintf("%s/sco/%08x-%08x-%08x", dir, number, epoch, nonce)
}

// Layout computes positions for a cluster size.
type Layout struct{ Cluster int }

// PerGroup returns the clusters of a full group.
func (l Layout) PerGroup() int { return max(1, GroupData/l.Cluster) }

// GroupBytes returns the size of a full group with its checksums.
func (l Layout) GroupBytes() int { return l.PerGroup() * (l.Cluster + SumBytes) }

// GroupsBytes returns the size of all groups of an object with n clusters.
func (l Layout) GroupsBytes(n int) int { return n * (l.Cluster + SumBytes) }

// Group returns the group of a cluster and its index in it.
func (l Layout) Group(cluster uint32) (group, index int) {
	return int(cluster) / l.PerGroup(), int(cluster) % l.PerGroup()
}

// GroupRange returns offset, length and number of clusters of a group in an
// object that holds n clusters.
func (l Layout) GroupRange(group int, n uint32) (off int64, length, clusters int) {
	clusters = min(l.PerGroup(), int(n)-group*l.PerGroup())
	return int64(group) * int64(l.GroupBytes()), clusters * (l.Cluster + SumBytes), clusters
}

// In returns the data and stored checksum of a cluster within group bytes b
// that hold n clusters.
func (l Layout) In(b []byte, n, index int) ([]byte, uint32) {
	return b[index*l.Cluster : (index+1)*l.Cluster],
		binary.LittleEndian.Uint32(b[n*l.Cluster+index*SumBytes:])
}

// Slot returns where cluster i of an object with n clusters goes in its bytes b.
func (l Layout) Slot(b []byte, n uint32, i uint32) (data, sum []byte) {
	g, k := l.Group(i)
	off, _, c := l.GroupRange(g, n)
	at := int(off) + k*l.Cluster
	s := int(off) + c*l.Cluster + k*SumBytes
	return b[at : at+l.Cluster], b[s : s+SumBytes]
}

// Size returns the object's size.
func Size(clusterBytes int, clusters, extents int) int {
	return Layout{clusterBytes}.GroupsBytes(clusters) + clusters*SumBytes + FooterBytes(extents) + trailerBytes
}

// SumsRange returns offset and length of the sums of an object with n clusters.
func (l Layout) SumsRange(n uint32) (off int64, length int) {
	return int64(l.GroupsBytes(int(n))), int(n) * SumBytes
}

// DataOffset returns where the data of a cluster stand in an object with n
// clusters; those of its group follow each other.
func (l Layout) DataOffset(cluster, n uint32) int64 {
	g, k := l.Group(cluster)
	off, _, _ := l.GroupRange(g, n)
	return off + int64(k*l.Cluster)
}

// FooterBytes returns the encoded size of a footer.
func FooterBytes(extents int) int { return fixedFooter + extents*extentBytes }

// Digest hashes the groups of an object while they are being filled, as long as that
// happens in order: their bytes are in the processor's caches then. The zero value has
// hashed nothing.
type Digest struct {
	hash   xxh3.Hasher
	filled uint32 // clusters, all from the first on
	hashed int    // bytes
}

// Filled says that cluster i of the object b with n clusters is in its place, with its sum.
func (d *Digest) Filled(b []byte, l Layout, n, i uint32) {
	if i != d.filled {
		return
	}
	d.filled++
	if g, k := l.Group(d.filled); k == 0 || d.filled == n {
		end := l.GroupsBytes(int(n))
		if k == 0 {
			end = g * l.GroupBytes()
		}
		_, _ = d.hash.Write(b[d.hashed:end])
		d.hashed = end
	}
}

// Finish writes sums, footer and trailer into the object b, whose groups are
// filled; len(b) is Size.
func Finish(b []byte, f *Footer) { new(Digest).Finish(b, f) }

// Finish is Finish of an object of which some groups are hashed.
func (d *Digest) Finish(b []byte, f *Footer) {
	l := Layout{int(f.Cluster)}
	groups := l.GroupsBytes(int(f.Clusters))
	sums := b[groups : groups+int(f.Clusters)*SumBytes]
	for i := range f.Clusters {
		_, sum := l.Slot(b, f.Clusters, i)
		copy(sums[i*SumBytes:], sum)
	}
	n := FooterBytes(len(f.Extents))
	at := groups + len(sums)
	EncodeFooter(b[at:at+n], f)
	t := b[at+n : at+n+trailerBytes]
	le := binary.LittleEndian
	le.PutUint32(t[0:], uint32(n))
	le.PutUint32(t[4:], clustersum.Plain(b[groups:at+n]))
	if d.hashed == 0 {
		le.PutUint64(t[8:], xxh3.Hash(b[:groups]))
	} else {
		_, _ = d.hash.Write(b[d.hashed:groups])
		le.PutUint64(t[8:], d.hash.Sum64())
	}
	le.PutUint64(t[16:], 0)
	copy(t[24:], magic[:])
}

// EncodeFooter writes f to b, FooterBytes long.
func EncodeFooter(b []byte, f *Footer) {
	le := binary.LittleEndian
	clear(b)
	le.PutUint16(b[0:], version)
	le.PutUint32(b[4:], f.Cluster)
	copy(b[8:24], f.VDisk[:])
	le.PutUint32(b[24:], f.Epoch)
	le.PutUint32(b[28:], f.Nonce)
	le.PutUint32(b[32:], f.Number)
	le.PutUint32(b[36:], f.Clusters)
	le.PutUint64(b[40:], f.FirstSeq)
	le.PutUint64(b[48:], f.LastSeq)
	le.PutUint64(b[56:], uint64(f.FirstTime))
	le.PutUint64(b[64:], uint64(f.LastTime))
	le.PutUint32(b[72:], uint32(len(f.Extents)))
	p := b[fixedFooter:]
	for _, e := range f.Extents {
		le.PutUint64(p[0:], e.LBA)
		le.PutUint64(p[8:], e.Length)
		p[16] = byte(e.Kind)
		le.PutUint32(p[20:], e.First)
		le.PutUint64(p[24:], e.Source)
		p = p[extentBytes:]
	}
}

// DecodeFooter reads a footer from the start of b and returns its length.
func DecodeFooter(b []byte) (*Footer, int, error) {
	le := binary.LittleEndian
	if len(b) < fixedFooter {
		return nil, 0, fmt.Errorf("%w: short footer", ErrCorrupt)
	}
	if v := le.Uint16(b); v > version {
		return nil, 0, fmt.Errorf("%w (%d)", ErrNewerFormat, v)
	} else if v == 0 {
		return nil, 0, fmt.Errorf("%w: footer version 0", ErrCorrupt)
	}
	f := &Footer{Cluster: le.Uint32(b[4:]), Epoch: le.Uint32(b[24:]), Nonce: le.Uint32(b[28:]),
		Number: le.Uint32(b[32:]), Clusters: le.Uint32(b[36:]), FirstSeq: le.Uint64(b[40:]), LastSeq: le.Uint64(b[48:]),
		FirstTime: int64(le.Uint64(b[56:])), LastTime: int64(le.Uint64(b[64:]))}
	copy(f.VDisk[:], b[8:24])
	n := int(le.Uint32(b[72:]))
	if n > maxExtents || len(b) < FooterBytes(n) || f.Cluster < lbaBytes || f.Cluster&(f.Cluster-1) != 0 || f.FirstSeq > f.LastSeq {
		return nil, 0, fmt.Errorf("%w: footer fields", ErrCorrupt)
	}
	f.Extents = make([]Extent, n)
	p := b[fixedFooter:]
	per := uint64(f.Cluster / lbaBytes)
	left := uint64(f.Clusters) // that no extent has yet; each belongs to one (O1)
	for i := range f.Extents {
		e := Extent{LBA: le.Uint64(p), Length: le.Uint64(p[8:]), Kind: Kind(p[16]), First: le.Uint32(p[20:]), Source: le.Uint64(p[24:])}
		if e.LBA%per != 0 || e.Length%per != 0 || e.LBA+e.Length < e.LBA || e.Kind < KindData || e.Kind > KindTrim ||
			e.Kind == KindData && (e.Length/per > left || uint64(e.First)+e.Length/per > uint64(f.Clusters)) {
			return nil, 0, fmt.Errorf("%w: extent %d", ErrCorrupt, i)
		}
		if e.Kind == KindData {
			left -= e.Length / per
		}
		f.Extents[i] = e
		p = p[extentBytes:]
	}
	return f, FooterBytes(n), nil
}

// Decode verifies a whole object and returns its footer. Checksums of clusters
// are verified too.
func Decode(b []byte) (*Footer, error) {
	if len(b) < trailerBytes+fixedFooter || string(b[len(b)-8:]) != string(magic[:]) {
		return nil, fmt.Errorf("%w: no trailer", ErrCorrupt)
	}
	le := binary.LittleEndian
	t := b[len(b)-trailerBytes:]
	n := int(le.Uint32(t))
	at := len(b) - trailerBytes - n
	if n < fixedFooter || at < 0 {
		return nil, fmt.Errorf("%w: footer length", ErrCorrupt)
	}
	f, used, err := DecodeFooter(b[at : at+n])
	if err != nil {
		return nil, err
	}
	sums, length := Layout{int(f.Cluster)}.SumsRange(f.Clusters)
	groups := int(sums)
	if used != n || sums+int64(length) != int64(at) || clustersum.Plain(b[groups:at+n]) != le.Uint32(t[4:]) {
		return nil, fmt.Errorf("%w: footer checksum", ErrCorrupt)
	}
	if xxh3.Hash(b[:groups]) != le.Uint64(t[8:]) {
		return nil, fmt.Errorf("%w: data checksum", ErrCorrupt)
	}
	return f, f.verifyClusters(b)
}

func (f *Footer) verifyClusters(b []byte) error {
	l, seed, per := Layout{int(f.Cluster)}, clustersum.NewSeed(f.VDisk), uint64(f.Cluster/lbaBytes)
	for _, e := range f.Extents {
		if e.Kind != KindData {
			continue
		}
		for k := uint64(0); k < e.Length/per; k++ {
			data, sum := l.Slot(b, f.Clusters, e.First+uint32(k))
			again := b[l.GroupsBytes(int(f.Clusters))+int(e.First+uint32(k))*SumBytes:][:SumBytes]
			if seed.Sum(e.LBA+k*per, data) != binary.LittleEndian.Uint32(sum) || string(again) != string(sum) {
				return fmt.Errorf("%w: cluster at lba %d", ErrCorrupt, e.LBA+k*per)
			}
		}
	}
	return nil
}
