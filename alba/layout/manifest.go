package layout

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/openvstorage/ovgate/alba/fragment"
	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/alba/preset"
)

// Bounds of an object.
const (
	// MaxName bounds an object's name, in bytes: what fits into a key of the NSM.
	MaxName = 512
	// MaxObjectBytes bounds an object: the largest SCO has 128 MiB.
	MaxObjectBytes = 1 << 30
	// MaxManifestBytes bounds an encoded manifest, so that it fits, twice, into
	// one transaction of the NSM.
	MaxManifestBytes = 384 << 10
	// maxChunks bounds the chunks of an object: what MaxObjectBytes has with the
	// smallest fragments.
	maxChunks = MaxObjectBytes / preset.MinFragmentBytes
	// maxSmallPieces bounds the pieces of an object, in all its fragments, if they are
	// smaller than 64 KiB. Checksum and length of each take 6 bytes: the manifests of
	// as many objects as a sequence may put fit into one transaction of the NSM.
	maxSmallPieces = 8 << 10
)

// Header is what all fragments of an object share.
type Header struct {
	Name    string
	Object  Object
	Size    int64  // bytes
	CRC     uint32 // crc32c of the object
	Created int64  // ms since 1970
	// Policy is the one the object was written by.
	Policy      preset.Policy
	ChunkBytes  int // data bytes of a chunk; the last one may hold fewer
	Compression fragment.Compression
	// Key is the id of the data key, zero without encryption.
	Key [16]byte
}

// Encrypted tells whether the fragments are encrypted.
func (h Header) Encrypted() bool { return h.Key != [16]byte{} }

// Chunks returns the number of chunks. An empty object has one, with a single
// byte of padding in it, so that recovery finds it.
func (h Header) Chunks() int {
	return int(max(1, (h.Size+int64(h.ChunkBytes)-1)/int64(h.ChunkBytes)))
}

// ChunkLen returns how many bytes chunk i codes.
func (h Header) ChunkLen(i int) int {
	return int(max(1, min(int64(h.ChunkBytes), h.Size-int64(i)*int64(h.ChunkBytes))))
}

// Validate says what keeps a header from being encoded: whoever writes one that
// cannot be read back hides the object, and what is listed beside it.
func (h Header) Validate() error {
	if h.Name == "" || len(h.Name) > MaxName {
		return fmt.Errorf("%w: object name of %d bytes, 1 to %d are allowed", ErrFormat, len(h.Name), MaxName)
	}
	if err := h.Policy.Validate(); err != nil {
		return fmt.Errorf("%w: object %.80q: %w", ErrFormat, h.Name, err)
	}
	if h.Size < 0 || h.Size > MaxObjectBytes || h.ChunkBytes < 1 || h.ChunkBytes > preset.MaxK*preset.MaxFragmentBytes || h.Chunks() > maxChunks {
		return fmt.Errorf("%w: object %.80q: size %d in chunks of %d", ErrFormat, h.Name, h.Size, h.ChunkBytes)
	}
	if h.Created < 0 {
		return fmt.Errorf("%w: object %.80q was created at %d", ErrFormat, h.Name, h.Created)
	}
	if _, err := fragment.ParseCompression(h.Compression.String()); err != nil {
		return fmt.Errorf("%w: object %.80q: %w", ErrFormat, h.Name, err)
	}
	return nil
}

// ShardBytes returns how many bytes each fragment of chunk i codes.
func (h Header) ShardBytes(i int) int {
	code, err := fragment.NewCode(h.Policy.K, h.Policy.M)
	if err != nil {
		return 0 // no index fits it
	}
	return code.ShardBytes(h.ChunkLen(i))
}

// PieceSize returns the size of the pieces of an object that is to be stored: what its
// preset wants, or larger ones as far as the manifest would become too long.
func (h Header) PieceSize(want fragment.PieceSize) fragment.PieceSize {
	for ; want > fragment.Piece64K; want-- {
		if h.Chunks()*h.Policy.N()*want.Pieces(h.ShardBytes(0)) <= maxSmallPieces {
			break
		}
	}
	return want
}

// Fragment is where one fragment is, and how it is stored.
type Fragment struct {
	OSD     uint32 // the device's number; 0: not stored
	Version uint32
	Epoch   uint64 // in which it was tagged
	Index   fragment.Index
}

// Manifest describes a stored object.
type Manifest struct {
	Header
	Fragments [][]Fragment // of each chunk, k+m each
	// Revision is the NSM's of the last change; not part of the encoding.
	Revision int64
}

// Place names a fragment of the manifest.
func (m *Manifest) Place(ns uint64, chunk, index int) Place {
	return Place{Namespace: ns, Object: m.Object, Chunk: uint32(chunk), Index: uint8(index), Version: m.Fragments[chunk][index].Version}
}

// Validate says what keeps a manifest from being encoded.
func (m *Manifest) Validate() error {
	if err := m.Header.Validate(); err != nil {
		return err
	}
	if len(m.Fragments) != m.Chunks() {
		return fmt.Errorf("%w: object %.80q: %d chunks for %d bytes", ErrFormat, m.Name, len(m.Fragments), m.Size)
	}
	size := m.PieceSize()
	for i, chunk := range m.Fragments {
		if len(chunk) != m.Policy.N() {
			return fmt.Errorf("%w: object %.80q: chunk %d has %d fragments with policy %v", ErrFormat, m.Name, i, len(chunk), m.Policy)
		}
		plain := m.ShardBytes(i)
		for j, f := range chunk {
			if f.OSD == 0 {
				continue
			}
			if f.Index.PlainBytes() != plain {
				return fmt.Errorf("%w: object %.80q: chunk %d fragment %d codes %d bytes, not %d", ErrFormat, m.Name, i, j, f.Index.PlainBytes(), plain)
			}
			if got := f.Index.PieceSize(); got != size {
				return fmt.Errorf("%w: object %.80q: chunk %d fragment %d has pieces of %v, another one of %v", ErrFormat, m.Name, i, j, got, size)
			}
		}
	}
	return nil
}

// PieceSize returns the size of the pieces of all its fragments: one, so that each can
// be made from the same pieces of others.
func (m *Manifest) PieceSize() fragment.PieceSize {
	for _, chunk := range m.Fragments {
		for _, f := range chunk {
			if f.OSD != 0 {
				return f.Index.PieceSize()
			}
		}
	}
	return fragment.Piece64K
}

// Missing returns how many fragments fewer than k+m the poorest chunk has.
func (m *Manifest) Missing() int {
	worst := 0
	for _, chunk := range m.Fragments {
		missing := 0
		for _, f := range chunk {
			if f.OSD == 0 {
				missing++
			}
		}
		worst = max(worst, missing)
	}
	return worst
}

// Stored returns the bytes of all fragments.
func (m *Manifest) Stored() int64 {
	var n int64
	for _, chunk := range m.Fragments {
		for _, f := range chunk {
			if f.OSD != 0 {
				n += f.Index.StoredBytes()
			}
		}
	}
	return n
}

// Clone returns a copy that can be changed.
func (m *Manifest) Clone() *Manifest {
	c := *m
	c.Fragments = make([][]Fragment, len(m.Fragments))
	for i, f := range m.Fragments {
		c.Fragments[i] = slices.Clone(f)
	}
	return &c
}

// Formats: the first byte of a manifest and of a recovery record.
const (
	manifestV1 = 0x51
	recoveryV1 = 0x71
)

// Encode returns the record of a manifest:
//
//	0x51 | header | per chunk, per fragment {osd, version, epoch, index} | crc32c
//
// with numbers as varints. The index is absent where the device is 0. What could
// not be decoded again is not encoded: ErrFormat.
func (m *Manifest) Encode() ([]byte, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	b := m.Header.append([]byte{manifestV1})
	for _, chunk := range m.Fragments {
		for _, f := range chunk {
			b = binary.AppendUvarint(b, uint64(f.OSD))
			b = binary.AppendUvarint(b, uint64(f.Version))
			if f.OSD == 0 {
				continue
			}
			b = binary.AppendUvarint(b, f.Epoch)
			var err error
			if b, err = f.Index.AppendBinary(b); err != nil {
				return nil, err
			}
		}
	}
	b = binary.BigEndian.AppendUint32(b, osd.CRC(b))
	if len(b) > MaxManifestBytes {
		return nil, fmt.Errorf("%w: object %.80q: its manifest has %d bytes, at most %d: use a preset with larger fragments", ErrFormat, m.Name, len(b), MaxManifestBytes)
	}
	return b, nil
}

// DecodeManifest reads a manifest of the object with this name.
func DecodeManifest(b []byte) (*Manifest, error) {
	r, err := unseal(b, manifestV1, "manifest")
	if err != nil {
		return nil, err
	}
	m := &Manifest{Header: r.header()}
	if r.err != nil {
		return nil, fmt.Errorf("%w: manifest: %w", ErrFormat, r.err)
	}
	n := m.Policy.N()
	m.Fragments = make([][]Fragment, m.Chunks())
	for i := range m.Fragments {
		m.Fragments[i] = make([]Fragment, n)
		for j := range m.Fragments[i] {
			f := &m.Fragments[i][j]
			f.OSD, f.Version = r.uint32(), r.uint32()
			if f.OSD != 0 && r.err == nil {
				f.Epoch = r.uint()
				f.Index = r.index()
			}
		}
		if r.err != nil {
			break
		}
	}
	if err := r.end(); err != nil {
		return nil, fmt.Errorf("%w: manifest of %.80q: %w", ErrFormat, m.Name, err)
	}
	if err := m.Validate(); err != nil {
		return nil, err
	}
	return m, nil
}

// EncodeRecovery returns the value of a fragment's tag (M4):
//
//	0x71 | header | index | crc32c
func EncodeRecovery(h Header, x fragment.Index) ([]byte, error) {
	if err := h.Validate(); err != nil {
		return nil, err
	}
	b, err := x.AppendBinary(h.append([]byte{recoveryV1}))
	return binary.BigEndian.AppendUint32(b, osd.CRC(b)), err
}

// DecodeRecovery reads the value of a tag.
func DecodeRecovery(b []byte) (Header, fragment.Index, error) {
	r, err := unseal(b, recoveryV1, "recovery record")
	if err != nil {
		return Header{}, fragment.Index{}, err
	}
	h := r.header()
	x := r.index()
	if err := r.end(); err != nil {
		return Header{}, fragment.Index{}, fmt.Errorf("%w: recovery record: %w", ErrFormat, err)
	}
	return h, x, nil
}

func (h Header) append(b []byte) []byte {
	b = appendBytes(b, []byte(h.Name))
	b = append(b, h.Object[:]...)
	b = binary.AppendUvarint(b, uint64(h.Size))
	b = binary.BigEndian.AppendUint32(b, h.CRC)
	b = binary.AppendUvarint(b, uint64(h.Created))
	for _, v := range []int{h.Policy.K, h.Policy.M, h.Policy.C, h.Policy.X, h.ChunkBytes} {
		b = binary.AppendUvarint(b, uint64(v))
	}
	b = append(b, byte(h.Compression))
	if !h.Encrypted() {
		return append(b, 0)
	}
	return append(append(b, 1), h.Key[:]...)
}

func (r *reader) header() Header {
	h := Header{Name: string(r.bytes(MaxName))}
	copy(h.Object[:], r.next(len(h.Object)))
	h.Size = int64(r.uint())
	if crc := r.next(4); crc != nil {
		h.CRC = binary.BigEndian.Uint32(crc)
	}
	h.Created = int64(r.uint())
	for _, v := range []*int{&h.Policy.K, &h.Policy.M, &h.Policy.C, &h.Policy.X, &h.ChunkBytes} {
		*v = int(r.uint32())
	}
	h.Compression = fragment.Compression(r.byte())
	switch encrypted := r.byte(); encrypted {
	case 0:
	case 1:
		copy(h.Key[:], r.next(len(h.Key)))
		if r.err == nil && !h.Encrypted() {
			r.fail(errors.New("encrypted with key 0"))
		}
	default:
		r.fail(fmt.Errorf("encryption %d", encrypted))
	}
	if r.err != nil {
		return h
	}
	r.fail(h.Validate())
	return h
}
