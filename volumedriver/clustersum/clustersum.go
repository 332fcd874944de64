// Package clustersum computes the end-to-end checksum of a cluster: CRC-32C
// salted with the vDisk it belongs to and the address it was written to, so
// that a right block in the wrong place, or of the wrong vDisk, does not verify.
// The same 4 bytes travel from memory to journal, SCO and back to the reader.
package clustersum

import (
	"encoding/binary"
	"hash/crc32"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Seed is the part of the salt that a vDisk's clusters have in common.
type Seed uint32

// NewSeed derives the seed from a vDisk's 16-byte id.
func NewSeed(vdisk [16]byte) Seed {
	return Seed(crc32.Checksum(vdisk[:], castagnoli))
}

// Sum returns the checksum of data written to the cluster that starts at the
// 512-byte address lba.
func (s Seed) Sum(lba uint64, data []byte) uint32 {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], lba)
	return crc32.Update(crc32.Update(uint32(s), castagnoli, b[:]), castagnoli, data)
}

// Plain returns the unsalted CRC-32C of what parts hold one after the other, used by
// headers and footers.
func Plain(parts ...[]byte) uint32 {
	crc := uint32(0)
	for _, b := range parts {
		crc = crc32.Update(crc, castagnoli, b)
	}
	return crc
}
