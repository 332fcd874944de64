// Package blkprobe tells what a block device holds, from its content alone: who
// formats disks asks it first. It only reads, at offsets that the formats document.
//
//	0        1 MiB                                        size-1 MiB      size
//	|--------|---- places of some formats (below) ----------------|---------|
//	 MBR GPT  VMFS 1 MiB, LUKS2 up to 4 MiB, btrfs 64 MiB,          GPT, MD,
//	 file sys. btrfs 256 GiB                                       RAID, ZFS
//
// # Invariants
//
//	P1  What is not understood counts: content other than zero in the first or the
//	    last MiB is a finding of its own when no signature is found.
//	P2  At most a fixed number of bytes is read, whatever the device holds.
//	P3  A finding says where it was found, so that it can be erased.
//
// It does not follow partitions, and does not tell whether what it found is whole.
package blkprobe

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Edge is how much of the beginning and of the end of a device is looked at whole.
const Edge = 1 << 20

// Found is something that a device holds.
type Found struct {
	What   string // in words, such as "xfs file system"
	Offset int64  // of the signature
	Length int64
	// UUID of the file system, in canonical form, and Label: of xfs only.
	UUID, Label string
	// Making: an xfs whose mkfs did not end.
	Making bool
}

// String says what was found, and where.
func (f Found) String() string {
	if f.Label != "" {
		return fmt.Sprintf("%s %q", f.What, f.Label)
	}
	return f.What
}

// Unknown is what content without a known signature is called.
const Unknown = "unknown data"

// XFS is what an xfs is called.
const XFS = "xfs file system"

// signature is a text at a fixed place: from the beginning, or, below 0, from the end.
type signature struct {
	what  string
	at    int64
	magic string
}

// maxPage is the largest page that swap space was made for.
const maxPage = 64 << 10

// signatures are those that a text at a place is enough for. Numbers are written in
// the order of bytes that the format has.
var signatures = []signature{
	{XFS, 0, "XFSB"},
	{"LUKS encrypted data", 0, "LUKS\xba\xbe"},
	{"Ceph bluestore OSD", 0, "bluestore block device\n"},
	{"squashfs file system", 0, "hsqs"},
	{"NTFS file system", 3, "NTFS    "},
	{"exFAT file system", 3, "EXFAT   "},
	{"BitLocker encrypted data", 3, "-FVE-FS-"},
	{"ReFS file system", 3, "ReFS\x00\x00\x00\x00"},
	{"APFS container", 32, "NXSB"},
	{"FAT file system", 54, "FAT12   "},
	{"FAT file system", 54, "FAT16   "},
	{"FAT file system", 82, "FAT32   "},
	{"HFS+ file system", 1024, "H+"},
	{"HFS+ file system", 1024, "HX"},
	{"f2fs file system", 1024, "\x10\x20\xf5\xf2"},
	{"f2fs file system", 4096 + 1024, "\x10\x20\xf5\xf2"},
	{"erofs file system", 1024, "\xe2\xe1\xf5\xe0"},
	{"bcache device", 4096 + 24, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"},
	{"bcachefs file system", 4096 + 24, "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef"},
	{"JFS file system", 32 << 10, "JFS1"},
	{"ISO 9660 file system", 32<<10 + 1, "CD001"},
	{"UDF file system", 32<<10 + 1, "BEA01"},
	{"reiserfs file system", 64<<10 + 52, "ReIsErFs"},
	{"reiserfs file system", 64<<10 + 52, "ReIsEr2Fs"},
	{"reiserfs file system", 64<<10 + 52, "ReIsEr3Fs"},
	{"GFS2 file system", 64 << 10, "\x01\x16\x19\x70\x00\x00\x00\x01"},
	{"btrfs file system", 64<<10 + 64, "_BHRfS_M"},
	{"btrfs file system", 64<<20 + 64, "_BHRfS_M"},
	{"btrfs file system", 256<<30 + 64, "_BHRfS_M"},
	{"VMFS volume", 1 << 20, "\x0d\xd0\x01\xc0"},
	{"member of an MD RAID", 0, "\xfc\x4e\x2b\xa9"},
	{"member of an MD RAID", 4096, "\xfc\x4e\x2b\xa9"},
	{"member of an Intel RAID", -1024, "Intel Raid ISM Cfg Sig. "},
	{"member of a DDF RAID", -512, "\xde\x11\xde\x11"},
	{"member of a DDF RAID", -512, "\x11\xde\x11\xde"},
	{"GPT partition table", 512, "EFI PART"},
	{"GPT partition table", 4096, "EFI PART"},
	{"GPT partition table (copy at the end)", -512, "EFI PART"},
	{"GPT partition table (copy at the end)", -4096, "EFI PART"},
}

// luksCopies are the places of the second header of LUKS2.
var luksCopies = []int64{0x4000, 0x8000, 0x10000, 0x20000, 0x40000, 0x80000, 0x100000, 0x200000, 0x400000}

// device is what is probed, with its edges read.
type device struct {
	r          io.ReaderAt
	size       int64
	head, tail []byte
}

// at returns n bytes at an offset from the beginning; nil where the device has none.
func (d *device) at(off int64, n int) ([]byte, error) {
	switch end := off + int64(n); {
	case off < 0 || end > d.size:
		return nil, nil
	case end <= int64(len(d.head)):
		return d.head[off:end], nil
	case off >= d.size-int64(len(d.tail)):
		return d.tail[off-(d.size-int64(len(d.tail))):][:n], nil
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(io.NewSectionReader(d.r, off, int64(n)), b); err != nil {
		return nil, fmt.Errorf("read %d bytes at %d: %w", n, off, err)
	}
	return b, nil
}

// Probe tells what a device of a size holds; nothing for one that is blank. The error
// is of a device that cannot be read, which is not blank.
func Probe(r io.ReaderAt, size int64) ([]Found, error) {
	return ProbeExcept(r, size, 0, 0)
}

// ProbeExcept is Probe for a device that holds n known bytes at an offset, which are
// taken for zero.
func ProbeExcept(r io.ReaderAt, size, off, n int64) ([]Found, error) {
	if n > 0 {
		r = hole{r, off, n}
	}
	d := &device{r: r, size: size}
	edge := min(Edge, size)
	var err error
	if d.head, err = d.at(0, int(edge)); err != nil {
		return nil, err
	}
	if d.tail, err = d.at(size-edge, int(edge)); err != nil {
		return nil, err
	}
	var all []Found
	for _, look := range []func(*device) ([]Found, error){texts, luks, ext, swap, md, lvm, zfs, mbr} {
		found, err := look(d)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	if len(all) == 0 {
		all = d.unknown()
	}
	return all, nil
}

// hole reads n bytes at off as zero.
type hole struct {
	io.ReaderAt
	off, n int64
}

func (h hole) ReadAt(p []byte, off int64) (int, error) {
	n, err := h.ReaderAt.ReadAt(p, off)
	if from, to := max(off, h.off), min(off+int64(n), h.off+h.n); from < to {
		clear(p[from-off : to-off])
	}
	return n, err
}

// unknown keeps P1.
func (d *device) unknown() (out []Found) {
	for _, e := range []struct {
		b   []byte
		off int64
		at  string
	}{{d.head, 0, "first"}, {d.tail, d.size - int64(len(d.tail)), "last"}} {
		if len(bytes.TrimLeft(e.b, "\x00")) > 0 {
			out = append(out, Found{What: Unknown + " in the " + e.at + " MiB", Offset: e.off, Length: int64(len(e.b))})
		}
	}
	return out
}

func texts(d *device) (out []Found, err error) {
	for _, s := range signatures {
		off := s.at
		if off < 0 {
			off += d.size
		}
		b, err := d.at(off, len(s.magic))
		if err != nil {
			return nil, err
		}
		if b == nil || string(b) != s.magic {
			continue
		}
		f := Found{What: s.what, Offset: off, Length: int64(len(s.magic))}
		if s.what == XFS {
			d.xfs(&f)
		}
		out = append(out, f)
	}
	return out, nil
}

// xfs reads the superblock: UUID at 32, label of 12 bytes at 108, at 126 whether
// mkfs is at work.
func (d *device) xfs(f *Found) {
	if len(d.head) < 512 {
		return
	}
	u := d.head[32:48]
	f.UUID = fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
	f.Label = string(bytes.TrimRight(d.head[108:120], "\x00"))
	f.Making = d.head[126] != 0
}

func luks(d *device) (out []Found, err error) {
	const magic = "SKUL\xba\xbe"
	for _, off := range luksCopies {
		b, err := d.at(off, len(magic))
		if err != nil {
			return nil, err
		}
		if string(b) == magic {
			out = append(out, Found{What: "LUKS encrypted data (second header)", Offset: off, Length: int64(len(magic))})
		}
	}
	return out, nil
}

// ext looks for the superblock at 1 KiB: magic at 56, features at 92, 96 and 100.
func ext(d *device) ([]Found, error) {
	sb, err := d.at(1024, 1024)
	if sb == nil || binary.LittleEndian.Uint16(sb[56:]) != 0xef53 {
		return nil, err
	}
	const hasJournal, journalDevice, ext4Incompat, ext4ROCompat = 0x4, 0x8, 0x40 | 0x80 | 0x200, 0x8 | 0x10 | 0x20 | 0x40 | 0x400
	compat, incompat, ro := binary.LittleEndian.Uint32(sb[92:]), binary.LittleEndian.Uint32(sb[96:]), binary.LittleEndian.Uint32(sb[100:])
	what := "ext2 file system"
	switch {
	case incompat&journalDevice != 0:
		what = "journal of an ext file system"
	case incompat&ext4Incompat != 0 || ro&ext4ROCompat != 0:
		what = "ext4 file system"
	case compat&hasJournal != 0:
		what = "ext3 file system"
	}
	return []Found{{What: what, Offset: 1024 + 56, Length: 2}}, nil
}

// swap looks at the last 10 bytes of the first page, of any size.
func swap(d *device) ([]Found, error) {
	for page := int64(4096); page <= maxPage; page *= 2 {
		b, err := d.at(page-10, 10)
		if err != nil {
			return nil, err
		}
		switch s := string(b); {
		case s == "SWAPSPACE2", s == "SWAP-SPACE":
			return []Found{{What: "swap space", Offset: page - 10, Length: 10}}, nil
		case len(s) > 9 && s[:9] == "S1SUSPEND":
			return []Found{{What: "a suspended system", Offset: page - 10, Length: 10}}, nil
		}
	}
	return nil, nil
}

// md looks for the superblocks at the end: 0.90 in the last whole 64 KiB but one, in
// either order of bytes, and 1.0 8 KiB before the end, down to 4 KiB.
func md(d *device) (out []Found, err error) {
	const magic = 0xa92b4efc
	for _, off := range []int64{d.size&^(64<<10-1) - 64<<10, (d.size/512 - 16) &^ 7 * 512} {
		b, err := d.at(off, 4)
		if err != nil {
			return nil, err
		}
		if b != nil && (binary.LittleEndian.Uint32(b) == magic || binary.BigEndian.Uint32(b) == magic) {
			out = append(out, Found{What: "member of an MD RAID", Offset: off, Length: 4})
		}
	}
	return out, nil
}

// lvm looks for the label of a physical volume in the first four sectors.
func lvm(d *device) ([]Found, error) {
	for sector := range int64(4) {
		b, err := d.at(sector*512, 512)
		if err != nil {
			return nil, err
		}
		if b != nil && string(b[:8]) == "LABELONE" {
			return []Found{{What: "LVM physical volume", Offset: sector * 512, Length: 8}}, nil
		}
	}
	return nil, nil
}

// zfs looks for an uberblock in each of the four labels of 256 KiB, two at each end.
func zfs(d *device) ([]Found, error) {
	const label, ring, step, magic = 256 << 10, 128 << 10, 1 << 10, 0x00bab10c
	end := d.size &^ (label - 1)
	for _, at := range []int64{0, label, end - 2*label, end - label} {
		b, err := d.at(at+ring, label-ring)
		if err != nil {
			return nil, err
		}
		for off := 0; off+8 <= len(b); off += step {
			if u := b[off:]; binary.LittleEndian.Uint64(u) == magic || binary.BigEndian.Uint64(u) == magic {
				return []Found{{What: "ZFS pool member", Offset: at + ring, Length: label - ring}}, nil
			}
		}
	}
	return nil, nil
}

// mbr takes a boot signature for a partition table when an entry has a type and a
// valid flag; a boot sector without one counts too.
func mbr(d *device) ([]Found, error) {
	b, err := d.at(0, 512)
	if b == nil || b[510] != 0x55 || b[511] != 0xaa {
		return nil, err
	}
	entries := 0
	for e := 446; e < 510; e += 16 {
		if b[e]&0x7f != 0 {
			entries = -1
			break
		}
		if b[e+4] != 0 {
			entries++
		}
	}
	what := "boot sector"
	if entries > 0 {
		what = "MBR partition table"
	}
	return []Found{{What: what, Offset: 440, Length: 72}}, nil
}

// Device is what Erase works on.
type Device interface {
	io.ReaderAt
	io.WriterAt
}

// errStubborn: a device does not keep the zeros that were written.
var errStubborn = errors.New("what was erased is still there")

// Erase overwrites both edges and every signature with zeros, but for n bytes at off,
// which stay. The caller syncs the device.
func Erase(d Device, size, off, n int64) error {
	found, err := ProbeExcept(d, size, off, n)
	if err != nil {
		return err
	}
	edge := min(Edge, size)
	found = append(found, Found{Offset: 0, Length: edge}, Found{Offset: size - edge, Length: edge})
	for _, f := range found {
		// Whole blocks: some devices write nothing smaller.
		const block = 4096
		from, to := f.Offset&^(block-1), min(size, (f.Offset+f.Length+block-1)&^(block-1))
		if from < off+n && off < to { // the part that stays
			err = errors.Join(zero(d, from, off), zero(d, off+n, to))
		} else {
			err = zero(d, from, to)
		}
		if err != nil {
			return err
		}
	}
	if found, err = ProbeExcept(d, size, off, n); err == nil && len(found) > 0 {
		err = fmt.Errorf("%w: %v", errStubborn, found[0])
	}
	return err
}

func zero(w io.WriterAt, from, to int64) error {
	if from >= to {
		return nil
	}
	_, err := w.WriteAt(make([]byte, to-from), from)
	return err
}
