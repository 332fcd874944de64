// Package qcow2 reads and writes disk images in QEMU's format, as far as they hold one
// disk and nothing else: no backing file, no external data file, no encryption, no
// internal snapshots. The command line uses it to import and export; a node never sees
// an image.
//
// An image comes from anywhere. The reader believes nothing, takes memory that depends
// on the size of the file alone and little of that, and refuses what it does not know.
//
// # File (all big-endian), as far as it is read
//
//	header   0 "QFI\xfb" | 4 version u32 = 2 or 3 | 8 backing file offset u64 |
//	        16 its length u32 | 20 cluster bits u32 | 24 size u64 | 32 encryption u32 |
//	        36 L1 entries u32 | 40 L1 offset u64 | 48 refcount table offset u64 |
//	        56 refcount table clusters u32 | 60 snapshots u32 | 64 their offset u64
//	        version 3: 72 incompatible features u64 | 80 compatible u64 | 88 autoclear u64 |
//	        96 refcount order u32 | 100 header length u32
//	then    extensions: type u32, length u32, data, to 8 bytes; ended by type 0
//	L1      u64 each: bits 9-55 offset of an L2 table; bit 63 refcount is one
//	L2      one cluster of u64 each: bits 9-55 offset; bit 0 reads as zeros (version 3);
//	        bit 62 compressed: then offset in bits 0-x and sectors less one above,
//	        x = 61-(cluster bits-8), of a raw deflate stream
//
// # Invariants
//
//	Q1  A table or cluster of the file is used once: two references to it are refused,
//	    so that no image reads as more than it has, and no reading goes in circles.
//	    Compressed clusters share sectors; the bytes that they take are counted instead.
//	Q2  Every offset is aligned, and inside the file with all that it is the start of.
//	Q3  What Writer writes has its header last, so that a file that was cut off is no
//	    image.
package qcow2

import (
	"errors"
	"fmt"
)

const (
	magic = 0x514649fb
	// MaxSize is the largest disk, in bytes: that of a vDisk.
	MaxSize = 64 << 40

	minClusterBits = 9
	maxClusterBits = 21
	sectorBytes    = 512
	// maxTable bounds the L1 and the refcount table, in bytes; no program makes larger
	// ones, and a file that is all holes can claim any.
	maxTable = 64 << 20

	header2 = 72
	header3 = 104

	flagCopied     = 1 << 63
	flagCompressed = 1 << 62
	flagZero       = 1
	offsetMask     = 1<<56 - 1<<9
)

// ErrRefused: the image is damaged, hostile, or holds what is not imported; the error
// says what and, where there is one, the remedy.
var ErrRefused = errors.New("qcow2 image refused")

func refuse(format string, a ...any) error {
	return fmt.Errorf("%w: %s", ErrRefused, fmt.Sprintf(format, a...))
}
