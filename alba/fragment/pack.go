package fragment

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
)

// PackBytes returns the capacity in which Pack of a shard of n bytes never
// allocates its result: stored bytes are never longer than the shard and a tag
// per piece, and a compressor needs room at the end.
func PackBytes(n int, size PieceSize) int {
	return n + size.Pieces(n)*tagBytes + scratchBytes - PieceBytes
}

// Pack makes the stored bytes of a shard: 1 to MaxShardBytes bytes, nothing
// else is asked of its length. key nil: not encrypted.
//
// When nothing is compressed or encrypted, stored is shard itself and dst is not
// touched. Otherwise stored is in dst[:0], which is reallocated when its
// capacity is below PackBytes; dst does not overlap shard. ErrInvalid, ErrKey.
func Pack(dst []byte, id ID, shard []byte, comp Compression, size PieceSize, key *Key) (stored []byte, idx Index, err error) {
	if len(shard) == 0 || len(shard) > MaxShardBytes || !comp.valid() || !size.valid() {
		return nil, Index{}, fmt.Errorf("%w: %v: shard of %d bytes (1 to %d are allowed), %v, %v", ErrInvalid, id, len(shard), MaxShardBytes, comp, size)
	}
	x := Index{plain: len(shard), comp: comp, size: size, encrypted: key != nil, crcs: make([]uint32, size.Pieces(len(shard)))}
	if comp == None && key == nil {
		for i := range x.crcs {
			x.crcs[i] = crcOf(shard[i*size.Bytes():][:x.pieceLen(i)])
		}
		return shard, x, nil
	}
	p := packer{x: &x, out: slices.Grow(dst[:0], PackBytes(len(shard), size))}
	if key != nil {
		if p.box, err = newBox(id, x, key); err != nil {
			return nil, Index{}, err
		}
		buf := scratch.Get().(*[]byte)
		defer scratch.Put(buf)
		p.scratch = *buf
	}
	if comp != None {
		x.payloads = make([]uint32, len(x.crcs))
	}
	raw := true
	for i := range x.crcs {
		piece := shard[i*size.Bytes():][:x.pieceLen(i)]
		if n := p.piece(i, piece); n != len(piece) {
			raw = false
		}
	}
	if raw {
		x.payloads = nil
	}
	if raw && key == nil {
		return shard, x, nil // bytes in out are the same, and the caller need not keep both
	}
	return p.out, x, nil
}

// rawIndex is that of a shard of n bytes which is neither compressed nor encrypted.
func rawIndex(n int, size PieceSize, crcs []uint32) Index {
	return Index{plain: n, size: size, crcs: crcs}
}

type packer struct {
	x       *Index
	out     []byte
	box     *box   // nil: not encrypted
	scratch []byte // with a box
}

// piece appends the stored form of piece i and notes it in the index. It
// returns the length of the payload.
func (p *packer) piece(i int, piece []byte) int {
	payload := piece
	switch {
	case p.x.comp == None:
	case allZero(piece):
		payload = nil
	default:
		into := p.out[len(p.out):] // compress in place
		if p.box != nil {
			into = p.scratch[:0]
		}
		if c := p.x.comp.compress(into, piece); c != nil {
			payload = c
		}
	}
	start := len(p.out)
	if p.box != nil {
		p.out = p.box.seal(p.out, i, payload)
	} else {
		p.out = append(p.out, payload...) // onto itself when compressed in place
	}
	p.x.crcs[i] = crcOf(p.out[start:])
	if p.x.payloads != nil {
		p.x.payloads[i] = uint32(len(payload))
	}
	return len(payload)
}

// Unpack decodes the pieces [first, first+count) out of stored, which is
// exactly what idx.Range says of them, into dst, which is exactly as long as
// idx.PlainRange says. dst and stored do not overlap, except that they may be the
// same bytes when idx.AsIs. After an error dst is undefined.
//
// CorruptError: see ErrCorrupt and ErrAuth. ErrKey: the fragment is encrypted
// and key is nil, or the other way round: who has a key expects that only its
// holders could have written this. ErrInvalid.
func Unpack(dst []byte, id ID, idx Index, first, count int, stored []byte, key *Key) error {
	if err := idx.checkStored(id, first, count, stored); err != nil {
		return err
	}
	if _, n := idx.PlainRange(first, count); n != len(dst) {
		return fmt.Errorf("%w: %v: %d bytes for pieces %d+%d, which have %d", ErrInvalid, id, len(dst), first, count, n)
	}
	if idx.encrypted != (key != nil) {
		return fmt.Errorf("%w: %v: encrypted: %v", ErrKey, id, idx.encrypted)
	}
	u := unpacker{id: id, x: idx}
	if key != nil {
		var err error
		if u.box, err = newBox(id, idx, key); err != nil {
			return err
		}
		buf := scratch.Get().(*[]byte)
		defer scratch.Put(buf)
		u.scratch = *buf
	}
	for i := first; i < first+count; i++ {
		n, plain := idx.storedLen(i), idx.pieceLen(i)
		if err := u.piece(dst[:plain], i, stored[:n]); err != nil {
			return err
		}
		dst, stored = dst[plain:], stored[n:]
	}
	return nil
}

type unpacker struct {
	id      ID
	x       Index
	box     *box
	scratch []byte
}

// piece decodes piece i out of its stored bytes into dst, of its plain length.
func (u *unpacker) piece(dst []byte, i int, stored []byte) error {
	if err := u.x.verifyPiece(u.id, i, stored); err != nil {
		return err
	}
	payload, raw := stored, u.x.payloadLen(i) == len(dst)
	if u.box != nil {
		into := u.scratch[:0]
		if raw {
			into = dst[:0]
		}
		var ok bool
		if payload, ok = u.box.open(into, i, stored); !ok {
			return &CorruptError{ID: u.id, Piece: i, Auth: true, Why: "wrong data key, bytes of another fragment, or forged"}
		}
	}
	switch {
	case raw:
		if &payload[0] != &dst[0] {
			copy(dst, payload)
		}
	case len(payload) == 0:
		clear(dst)
	default:
		if err := u.x.comp.decompress(dst, payload); err != nil {
			return &CorruptError{ID: u.id, Piece: i, Why: fmt.Sprintf("%v: %v", u.x.comp, err)}
		}
	}
	return nil
}

// Labels keep keys and ids of one purpose from serving another. Fixed for ever.
const (
	labelFragment = "ovgate alba fragment 1"
	labelKeyID    = "ovgate alba data key id 1"
	labelWrapID   = "ovgate alba wrap key id 1"
	labelWrap     = "ovgate alba wrapped key 1"
)

// box seals and opens the pieces of one fragment.
type box struct {
	aead  cipher.AEAD
	nonce [12]byte
	bound []byte // additional data
}

func newBox(id ID, x Index, key *Key) (*box, error) {
	if key.secret == nil {
		return nil, fmt.Errorf("%w: %v: the key is empty", ErrKey, id)
	}
	// The compression and the size of pieces are in the info because others make
	// other bytes of the same shard: they get another key, not the same nonce (F2).
	info := append([]byte(labelFragment), x.form())
	info = append(info, id.Object[:]...)
	aead, err := key.objects().of(string(info), func() (cipher.AEAD, error) { return derive(key, string(info)) })
	if err != nil {
		return nil, fmt.Errorf("fragment: %v: object key: %w", id, err)
	}
	b := &box{aead: aead}
	binary.BigEndian.PutUint32(b.nonce[0:], id.Chunk)
	b.nonce[4] = id.Index
	binary.BigEndian.PutUint32(b.nonce[5:], id.Version)
	b.bound = binary.BigEndian.AppendUint32(info, uint32(x.plain))
	b.bound = append(b.bound, b.nonce[:9]...)
	return b, nil
}

// derive makes the cipher of an object.
func derive(key *Key, info string) (cipher.AEAD, error) {
	object, err := hkdf.Key(sha256.New, key.secret()[:], nil, info, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(object)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// objectKeysMax bounds the ciphers that a data key remembers: 1 KiB each.
const objectKeysMax = 1 << 10

// objectKeys remembers the ciphers of objects that were used lately, since to derive
// one takes longer than to open a piece of 4 KiB. Safe for concurrent use.
type objectKeys struct {
	mu    sync.Mutex
	known map[string]cipher.AEAD
}

// of returns the cipher for info, which make makes when it is not known.
func (o *objectKeys) of(info string, make func() (cipher.AEAD, error)) (cipher.AEAD, error) {
	o.mu.Lock()
	aead, ok := o.known[info]
	o.mu.Unlock()
	if ok {
		return aead, nil
	}
	aead, err := make()
	if err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.known) >= objectKeysMax {
		for other := range o.known { // any
			delete(o.known, other)
			break
		}
	}
	o.known[info] = aead
	return aead, nil
}

// at sets the nonce to that of piece i, below maxPieces, which is below 1<<24.
func (b *box) at(i int) []byte {
	b.nonce[9], b.nonce[10], b.nonce[11] = byte(i>>16), byte(i>>8), byte(i)
	return b.nonce[:]
}

func (b *box) seal(dst []byte, i int, payload []byte) []byte {
	return b.aead.Seal(dst, b.at(i), payload, b.bound)
}

func (b *box) open(dst []byte, i int, stored []byte) (payload []byte, ok bool) {
	payload, err := b.aead.Open(dst, b.at(i), stored, b.bound)
	return payload, err == nil
}
