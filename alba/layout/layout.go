// Package layout fixes what Alba writes: the keys on its devices, the manifest of
// an object, and the recovery record beside each fragment. Everything above it
// (client, nsm, maintenance) reads and writes these and nothing else.
//
// # Keys on a device
//
//	i                                       instance: which cluster claimed the device
//	n  ns                                   namespace: present while ns is active,
//	                                        with the oldest epoch that is taken
//	f  ns  object  chunk  index  version    the stored bytes of a fragment
//	g  ns  epoch  object chunk index version  its tag: the recovery record
//	q                                       written and read back to try a device
//
// ns and epoch are 8 bytes, object 16, chunk and version 4, index 1, all big
// endian, so that the fragments of a namespace, and the tags of an epoch, lie
// together in order.
//
// # Invariants
//
//	M1  An object id is random and used once, so no fragment key is ever written
//	    twice with different bytes.
//	M2  The version of a fragment grows with each repair or move and never falls:
//	    a late delete names the old one and cannot hit the new.
//	M3  Every fragment is written together with its tag, in one transaction that
//	    asserts the namespace's key: no fragment without a tag, none in a namespace
//	    that the device has given up, and none in an epoch below the one there,
//	    however late the writer.
//	M4  The tags of an object are enough to rebuild its manifest: each holds the
//	    object's header and the index of its own fragment.
//	M5  A fragment that a manifest names was written in an epoch that was valid
//	    when the manifest was committed. A fragment in an epoch that is no
//	    longer valid, and which no manifest names, is garbage.
package layout

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/openvstorage/ovgate/alba/fragment"
)

// ErrFormat: bytes that are not what their place says, or of a newer version.
var ErrFormat = errors.New("alba: unknown or damaged format")

// Object identifies an object for ever; the zero value is none.
type Object [16]byte

func (o Object) String() string { return hex.EncodeToString(o[:]) }

// MarshalText implements encoding.TextMarshaler.
func (o Object) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, o[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (o *Object) UnmarshalText(b []byte) error {
	if len(b) != hex.EncodedLen(len(o)) {
		return fmt.Errorf("%w: object id %.80q", ErrFormat, b)
	}
	_, err := hex.Decode(o[:], b)
	return err
}

// Place names one stored fragment on any device.
type Place struct {
	Namespace uint64
	Object    Object
	Chunk     uint32
	Index     uint8
	Version   uint32
}

func (p Place) String() string {
	return fmt.Sprintf("namespace %d object %v chunk %d fragment %d version %d", p.Namespace, p.Object, p.Chunk, p.Index, p.Version)
}

// Lengths of keys.
const (
	nsKeyBytes       = 1 + 8
	fragmentKeyBytes = nsKeyBytes + 16 + 4 + 1 + 4
	tagKeyBytes      = fragmentKeyBytes + 8
)

// InstanceKey is the key of the claim on a device.
func InstanceKey() []byte { return []byte{'i'} }

// TrialKey is the key that is written and read back to try a device.
func TrialKey() []byte { return []byte{'q'} }

// NamespaceKey is the key that is present while a namespace is active on a device.
func NamespaceKey(ns uint64) []byte { return binary.BigEndian.AppendUint64([]byte{'n'}, ns) }

// NamespacesPrefix is the prefix of all NamespaceKeys.
func NamespacesPrefix() []byte { return []byte{'n'} }

// FragmentsPrefix is the prefix of the fragments of a namespace.
func FragmentsPrefix(ns uint64) []byte { return binary.BigEndian.AppendUint64([]byte{'f'}, ns) }

// TagsPrefix is the prefix of the tags of a namespace.
func TagsPrefix(ns uint64) []byte { return binary.BigEndian.AppendUint64([]byte{'g'}, ns) }

// FragmentKey is where a fragment's bytes are.
func (p Place) FragmentKey() []byte {
	return p.append(append(make([]byte, 0, fragmentKeyBytes), FragmentsPrefix(p.Namespace)...))
}

// TagKey is where the tag of a fragment written in an epoch is.
func (p Place) TagKey(epoch uint64) []byte {
	return p.append(binary.BigEndian.AppendUint64(append(make([]byte, 0, tagKeyBytes), TagsPrefix(p.Namespace)...), epoch))
}

// EpochAfter returns the key after all tags of a namespace up to an epoch: where
// a listing of later ones begins.
func EpochAfter(ns, epoch uint64) []byte {
	return binary.BigEndian.AppendUint64(TagsPrefix(ns), epoch+1)
}

func (p Place) append(b []byte) []byte {
	b = append(b, p.Object[:]...)
	b = binary.BigEndian.AppendUint32(b, p.Chunk)
	b = append(b, p.Index)
	return binary.BigEndian.AppendUint32(b, p.Version)
}

// ParseFragmentKey reads a FragmentKey.
func ParseFragmentKey(key []byte) (Place, error) {
	if len(key) != fragmentKeyBytes || key[0] != 'f' {
		return Place{}, fmt.Errorf("%w: fragment key %x", ErrFormat, key)
	}
	return parsePlace(key[1:9], key[9:]), nil
}

// ParseTagKey reads a TagKey.
func ParseTagKey(key []byte) (Place, uint64, error) {
	if len(key) != tagKeyBytes || key[0] != 'g' {
		return Place{}, 0, fmt.Errorf("%w: tag key %x", ErrFormat, key)
	}
	return parsePlace(key[1:9], key[17:]), binary.BigEndian.Uint64(key[9:17]), nil
}

// ParseNamespaceKey reads a NamespaceKey.
func ParseNamespaceKey(key []byte) (uint64, error) {
	if len(key) != nsKeyBytes || key[0] != 'n' {
		return 0, fmt.Errorf("%w: namespace key %x", ErrFormat, key)
	}
	return binary.BigEndian.Uint64(key[1:]), nil
}

func parsePlace(ns, b []byte) Place {
	return Place{
		Namespace: binary.BigEndian.Uint64(ns),
		Object:    Object(b[:16]),
		Chunk:     binary.BigEndian.Uint32(b[16:20]),
		Index:     b[20],
		Version:   binary.BigEndian.Uint32(b[21:25]),
	}
}

// FragmentID is what the codec knows of a fragment. With k = 1 all fragments are
// the same bytes, so that a copy can be made of any other.
func (p Place) FragmentID(k int) fragment.ID {
	id := fragment.ID{Object: p.Object, Chunk: p.Chunk, Index: p.Index, Version: p.Version}
	if k == 1 {
		id.Index = 0
	}
	return id
}

// Instance is the claim on a device.
type Instance struct {
	Cluster string `json:"cluster"` // UUID of the Alba
	OSD     uint32 `json:"osd"`     // the device's number in it
}

// Encode returns the value of InstanceKey.
func (i Instance) Encode() ([]byte, error) { return json.Marshal(i) }

// DecodeInstance reads the value of InstanceKey.
func DecodeInstance(b []byte) (Instance, error) {
	var i Instance
	if err := json.Unmarshal(b, &i); err != nil || i.Cluster == "" {
		return i, fmt.Errorf("%w: instance record %.80q", ErrFormat, b)
	}
	return i, nil
}

// Link is the value of a NamespaceKey: what recovery needs to know of a
// namespace whose NSM is lost.
type Link struct {
	ID     uint64 `json:"id"`
	Name   string `json:"name"`
	Preset string `json:"preset"`
	// EpochMin is the oldest epoch that the device takes fragments of: it never
	// falls. Collection raises it before it goes through those below.
	EpochMin uint64 `json:"epochMin"`
}

// Encode returns the value of NamespaceKey.
func (l Link) Encode() ([]byte, error) { return json.Marshal(l) }

// DecodeLink reads the value of a NamespaceKey.
func DecodeLink(b []byte) (Link, error) {
	var l Link
	if err := json.Unmarshal(b, &l); err != nil || l.ID == 0 || l.Name == "" {
		return l, fmt.Errorf("%w: namespace record %.80q", ErrFormat, b)
	}
	return l, nil
}
