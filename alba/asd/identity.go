package asd

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/internal/blockfs"
)

// The parts of the directory.
const (
	identityName = "asd"
	indexDir     = "db"
	blobDir      = "blob"
)

// strangers are names in a device's directory that are not its own and harmless:
// the lock of whoever opens it, and what mkfs makes in the root of a disk.
var strangers = map[string]bool{"lock": true, "lost+found": true}

// Identity file:
//
//	magic 8 | version 4 | state 4 | UUID as text 36 | CRC32C of all before 4
const (
	identityMagic = "OVGASD\r\n"
	// formatVersion is raised by whatever a reader of this version would not
	// understand, in this file, in the index or in the containers.
	formatVersion = 1
	uuidBytes     = 36
	identityBytes = len(identityMagic) + 4 + 4 + uuidBytes + 4
	// identityLimit bounds what is read of the file of a later version.
	identityLimit = 64 << 10
)

// States of a device.
const (
	stateMaking = 1 // being made: it was never opened
	stateReady  = 2
)

// identity is the content of the identity file.
type identity struct {
	state uint32
	id    string
}

func (i identity) encode() []byte {
	b := append(make([]byte, 0, identityBytes), identityMagic...)
	b = binary.BigEndian.AppendUint32(b, formatVersion)
	b = binary.BigEndian.AppendUint32(b, i.state)
	b = append(b, i.id...)
	return binary.BigEndian.AppendUint32(b, osd.CRC(b))
}

// errIdentityFile: the identity file does not decode.
var errIdentityFile = errors.New("the identity file " + identityName + " is damaged: restore it, or replace the device")

func decodeIdentity(b []byte) (identity, error) {
	m := len(identityMagic)
	if len(b) < m+4 || string(b[:m]) != identityMagic {
		return identity{}, fmt.Errorf("%w: it does not begin as one", errIdentityFile)
	}
	if v := binary.BigEndian.Uint32(b[m:]); v > formatVersion {
		return identity{}, fmt.Errorf("the device has format %d, this version reads %d: use the version that made it", v, formatVersion)
	}
	body := len(b) - 4
	if len(b) != identityBytes || osd.CRC(b[:body]) != binary.BigEndian.Uint32(b[body:]) {
		return identity{}, fmt.Errorf("%w: checksum", errIdentityFile)
	}
	i := identity{state: binary.BigEndian.Uint32(b[m+4:]), id: string(b[m+8 : body])}
	if !ValidID(i.id) || i.state != stateMaking && i.state != stateReady {
		return identity{}, fmt.Errorf("%w: id %q, state %d", errIdentityFile, i.id, i.state)
	}
	return i, nil
}

// ValidID tells whether id is a UUID in lower-case canonical form.
func ValidID(id string) bool {
	if len(id) != uuidBytes {
		return false
	}
	for i, c := range []byte(id) {
		switch {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if c != '-' {
				return false
			}
		case (c < '0' || c > '9') && (c < 'a' || c > 'f'):
			return false
		}
	}
	return true
}

// NewID draws a version 4 UUID.
func NewID(random io.Reader) (string, error) {
	var b [16]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", fmt.Errorf("draw an identity: %w", err)
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:], nil
}

// claim finds out whose directory it is (A7), and begins a new device where there
// is none and Options.Create asks for it. made tells that the identity file says
// "being made": index and containers are empty, and still to be made.
func claim(fsys blockfs.FS, opts Options) (id string, making bool, err error) {
	if opts.ID != "" && !ValidID(opts.ID) {
		return "", false, fmt.Errorf("identity %q is not a UUID in lower case", opts.ID)
	}
	data, err := blockfs.ReadFile(fsys, identityName, identityLimit)
	found := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", false, err
	}
	if err := checkNames(fsys, found); err != nil {
		return "", false, err
	}
	var was identity
	if found {
		if was, err = decodeIdentity(data); err != nil {
			return "", false, err
		}
	}
	if was.state == stateReady {
		if opts.ID != "" && opts.ID != was.id {
			return "", false, fmt.Errorf("%w: %s was asked for, the directory holds %s", osd.ErrIdentity, opts.ID, was.id)
		}
		return was.id, false, nil
	}
	if !opts.Create {
		return "", false, errors.New("the directory holds no ASD: make one, or mount the disk that holds it")
	}
	id, err = begin(fsys, was, opts)
	return id, true, err
}

// begin makes the directory one whose device is being made. What an earlier
// attempt left is removed: nothing was ever acknowledged from it.
func begin(fsys blockfs.FS, was identity, opts Options) (id string, err error) {
	if id = opts.ID; id == "" {
		id = was.id
	}
	if id == "" {
		if id, err = NewID(opts.Rand); err != nil {
			return "", err
		}
	}
	if now := (identity{stateMaking, id}); now != was {
		if err := blockfs.WriteFile(fsys, identityName, now.encode()); err != nil {
			return "", err
		}
	}
	for _, dir := range []string{indexDir, blobDir} {
		if err := removeAll(fsys, dir); err != nil {
			return "", err
		}
	}
	if err := fsys.SyncDir("."); err != nil {
		return "", err
	}
	return id, fsys.MkdirAll(blobDir)
}

// checkNames refuses a directory that holds what is not of an ASD; without an
// identity file nothing is.
func checkNames(fsys blockfs.FS, identified bool) error {
	infos, err := fsys.ListNames(".")
	if err != nil {
		return err
	}
	for _, e := range infos {
		own := e.Name == identityName || e.Name == identityName+blockfs.TempSuffix ||
			identified && e.Dir && (e.Name == indexDir || e.Name == blobDir)
		if !own && !strangers[e.Name] {
			return fmt.Errorf("the directory holds %q, which is not of an ASD: move it elsewhere, or use an empty directory", e.Name)
		}
	}
	return nil
}

// checkIndexIdentity compares the identity in the index with that of the file.
func checkIndexIdentity(id string, stored []byte) error {
	if !bytes.Equal(stored, []byte(id)) {
		return fmt.Errorf("%w: the identity file says %s, the index %q: these are parts of two devices", osd.ErrIdentity, id, stored)
	}
	return nil
}
