package esxsim

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/openvstorage/ovgate/iscsi/initiator"
)

var be = binary.BigEndian

// device is what a LUN told of itself on one path.
type device struct {
	naa                     string // 32 hexadecimal digits; empty: it has no name of its own
	vendor, model, revision string
	serial                  string
	inquiry, page83         []byte
	tpgs                    bool
	group                   uint16 // port group of the path
	blocks                  uint64
	blockSize               uint32
	physical                byte // exponent of logical blocks in a physical one
	thin                    bool
}

// inquire reads an INQUIRY page; -1 is the standard data.
func inquire(s *initiator.Session, lun uint16, page int) (b []byte, err error) {
	err = again(func(ctx context.Context) error {
		b, err = s.Inquiry(ctx, lun, page)
		return err
	})
	return b, err
}

// look asks a LUN what a host asks when it claims a path; nil without an error: it is no
// disk.
func look(s *initiator.Session, lun uint16) (*device, error) {
	b, err := inquire(s, lun, -1)
	if err != nil {
		return nil, err
	}
	if len(b) < 36 {
		return nil, errors.New("its INQUIRY data is short")
	}
	if b[0] != 0 {
		return nil, nil
	}
	text := func(b []byte) string { return strings.TrimRight(string(b), " \x00") }
	d := &device{inquiry: b, vendor: text(b[8:16]), model: text(b[16:32]), revision: text(b[32:36]), tpgs: b[5]&0x30 != 0}
	if p, err := inquire(s, lun, 0x80); err == nil && len(p) > 4 {
		d.serial = text(p[4:min(len(p), 4+int(be.Uint16(p[2:])))])
	}
	if d.page83, err = inquire(s, lun, 0x83); err != nil {
		return nil, fmt.Errorf("VPD 83: %w", err)
	}
	d.designators()
	var c initiator.Capacity
	err = again(func(ctx context.Context) error {
		c, err = s.ReadCapacity(ctx, lun)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("READ CAPACITY: %w", err)
	}
	d.blocks, d.blockSize, d.physical, d.thin = c.Blocks, c.BlockSize, c.PhysicalShift, c.Thin
	if d.blockSize != initiator.BlockSize {
		return nil, fmt.Errorf("its blocks have %d bytes; hosts take 512", d.blockSize)
	}
	return d, nil
}

// designators reads the names of VPD 83 (SPC-4 7.8.6).
func (d *device) designators() {
	const header = 4
	if len(d.page83) < header {
		return
	}
	for rest := d.page83[header:min(len(d.page83), header+int(be.Uint16(d.page83[2:])))]; len(rest) >= header; {
		n := int(rest[3])
		if len(rest) < header+n {
			return
		}
		of, kind, value := rest[1]>>4&3, rest[1]&0xf, rest[header:header+n]
		switch {
		case of == 0 && kind == 3: // of the logical unit, NAA
			d.naa = hex.EncodeToString(value)
		case of == 1 && kind == 5 && n == 4: // of the port, its group
			d.group = be.Uint16(value[2:])
		}
		rest = rest[header+n:]
	}
}

// pathState asks for the state of the path's port group (REPORT TARGET PORT GROUPS).
func (d *device) pathState(s *initiator.Session, lun uint16) pathState {
	dead := pathState{state: pathDead}
	if !d.tpgs {
		return pathState{pathActive, true}
	}
	b := make([]byte, 4096)
	cdb := [16]byte{0xa3, 0x0a}
	be.PutUint32(cdb[6:], uint32(len(b)))
	cmd := &initiator.Command{LUN: lun, CDB: cdb, In: b}
	if again(func(ctx context.Context) error {
		cmd = &initiator.Command{LUN: lun, CDB: cdb, In: b}
		return s.Do(ctx, cmd)
	}) != nil || cmd.Received < 4 {
		return dead
	}
	for rest := b[4:min(cmd.Received, 4+int(be.Uint32(b)))]; len(rest) >= 8; {
		if be.Uint16(rest[2:]) == d.group {
			switch state := rest[0] & 0xf; state { // SPC-4 6.37
			case 0, 1:
				return pathState{pathActive, state == 0}
			case 2, 0xf:
				return pathState{state: pathStandby}
			}
			return dead
		}
		n := 8 + 4*int(rest[7])
		if len(rest) < n {
			break
		}
		rest = rest[n:]
	}
	return dead
}

// supportsATS compares and writes a block of the lock with its own content, which has to
// work, and with another, which has to miscompare.
func supportsATS(s *initiator.Session, lun uint16) bool {
	const tries = 10 // a host that takes the lock meanwhile changes the block
	block := make([]byte, initiator.BlockSize)
	lba := uint64(lockAt / initiator.BlockSize)
	for range tries {
		if again(func(ctx context.Context) error { return s.ReadAt(ctx, lun, block, lba) }) != nil {
			return false
		}
		err := again(func(ctx context.Context) error { return s.CompareAndWrite(ctx, lun, block, block, lba) })
		if miscompared(err) {
			continue
		}
		if err != nil {
			return false
		}
		other := bytes.Clone(block)
		other[0] ^= 0xff
		return miscompared(again(func(ctx context.Context) error { return s.CompareAndWrite(ctx, lun, other, block, lba) }))
	}
	return false
}

func miscompared(err error) bool {
	var e *initiator.SCSIError
	return errors.As(err, &e) && e.Sense.Key == initiator.Miscompare
}
