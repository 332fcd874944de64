package iscsi_test

import (
	"github.com/openvstorage/ovgate/iscsi/initiator"
)

// copyList is an EXTENDED COPY(LID1) parameter list.
type copyList struct {
	id, usage byte
	cscds     [][16]byte // NAA designators
	blockLen  int        // 0: 512
	segments  []copySegment
}

type copySegment struct {
	source, dest uint16
	blocks       uint16
	from, to     uint64
	dc           bool // blocks are the destination's
}

func (l copyList) bytes() []byte {
	b := make([]byte, 16)
	b[0], b[1] = l.id, l.usage<<3
	be.PutUint16(b[2:], uint16(32*len(l.cscds)))
	be.PutUint32(b[8:], uint32(28*len(l.segments)))
	block := l.blockLen
	if block == 0 {
		block = 512
	}
	for _, naa := range l.cscds {
		d := make([]byte, 32)
		d[0], d[4], d[5], d[7] = 0xe4, 1, 3, 16
		copy(d[8:], naa[:])
		be.PutUint32(d[28:], uint32(block))
		b = append(b, d...)
	}
	for _, s := range l.segments {
		d := make([]byte, 28)
		d[0], d[3] = 0x02, 24
		if s.dc {
			d[1] = 0x02
		}
		be.PutUint16(d[4:], s.source)
		be.PutUint16(d[6:], s.dest)
		be.PutUint16(d[10:], s.blocks)
		be.PutUint64(d[12:], s.from)
		be.PutUint64(d[20:], s.to)
		b = append(b, d...)
	}
	return b
}

func copyCommand(l copyList) *initiator.Command { return rawCopy(l.bytes()) }

func rawCopy(b []byte) *initiator.Command {
	c := cdb(0x83)
	be.PutUint32(c[10:], uint32(len(b)))
	return &initiator.Command{CDB: c, Out: b}
}
