package blkprobe

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const mib = 1 << 20

// image makes a sparse file.
func image(t testing.TB, size int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f
}

// tool is a program of the tests, which has to be there where CI says so.
func tool(t *testing.T, name string) string {
	t.Helper()
	for _, dir := range []string{"", "/sbin", "/usr/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is not installed: scripts/setup.sh installs it", name)
	}
	t.Skipf("%s is not installed", name)
	return ""
}

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(tool(t, name), args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", name, err, out)
	}
}

// blkid is what the system's own probe says, as type and type of partition table.
func blkid(t *testing.T, f *os.File) string {
	t.Helper()
	out, err := exec.Command(tool(t, "blkid"), "-p", "-o", "export", f.Name()).Output()
	if err != nil && len(out) == 0 {
		return ""
	}
	var got []string
	for line := range strings.Lines(string(out)) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		if k == "TYPE" || k == "PTTYPE" {
			got = append(got, v)
		}
	}
	return strings.Join(got, " ")
}

func words(found []Found) string {
	var s []string
	for _, f := range found {
		s = append(s, f.String())
	}
	return strings.Join(s, ", ")
}

// eraseLeavesNothing erases an image but for a block, and looks with blkid too.
func eraseLeavesNothing(t *testing.T, f *os.File, size int64) {
	t.Helper()
	const off = 12*mib + 512
	mark := bytes.Repeat([]byte("stay"), 128)
	if _, err := f.WriteAt(mark, off); err != nil {
		t.Fatal(err)
	}
	if err := Erase(f, size, off, int64(len(mark))); err != nil {
		t.Fatal(err)
	}
	if found, err := Probe(f, size); err != nil || len(found) > 0 {
		t.Errorf("after the erasure: %v, %v", found, err)
	}
	if got := blkid(t, f); got != "" {
		t.Errorf("after the erasure blkid finds %q", got)
	}
	got := make([]byte, len(mark))
	if _, err := f.ReadAt(got, off); err != nil || !bytes.Equal(got, mark) {
		t.Errorf("what had to stay is gone: %v", err)
	}
}

// TestReal looks at what the real programs make, and at it once erased.
func TestReal(t *testing.T) {
	for _, c := range []struct {
		name, want, blkid string
		size              int64
		cmd               []string
	}{
		{"xfs", `xfs file system "photos"`, "xfs", 320 * mib, []string{"mkfs.xfs", "-q", "-L", "photos"}},
		{"ext2", "ext2 file system", "ext2", 32 * mib, []string{"mkfs.ext2", "-q"}},
		{"ext3", "ext3 file system", "ext3", 32 * mib, []string{"mkfs.ext3", "-q"}},
		{"ext4", "ext4 file system", "ext4", 32 * mib, []string{"mkfs.ext4", "-q"}},
		{"journal", "journal of an ext file system", "jbd", 32 * mib, []string{"mke2fs", "-q", "-O", "journal_dev"}},
		{"swap", "swap space", "swap", 32 * mib, []string{"mkswap", "-q"}},
		{"swap of 64 KiB pages", "swap space", "swap", 32 * mib, []string{"mkswap", "-q", "-p", "65536"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := image(t, c.size)
			command(t, c.cmd[0], append(c.cmd[1:], f.Name())...)
			found, err := Probe(f, c.size)
			if err != nil || words(found) != c.want {
				t.Errorf("found %q, %v, not %q", words(found), err, c.want)
			}
			if got := blkid(t, f); got != c.blkid {
				t.Errorf("blkid says %q, not %q", got, c.blkid)
			}
			eraseLeavesNothing(t, f, c.size)
		})
	}
}

// TestXFS reads whose file system it is, and whether mkfs ended.
func TestXFS(t *testing.T) {
	const id = "0085ffc3-c330-4a54-88f3-ce812afee08d"
	f := image(t, 320*mib)
	command(t, "mkfs.xfs", "-q", "-m", "uuid="+id, "-L", "twelve-chars", f.Name())
	found, err := Probe(f, 320*mib)
	if err != nil || len(found) != 1 || found[0].UUID != id || found[0].Label != "twelve-chars" || found[0].Making {
		t.Fatalf("%+v, %v", found, err)
	}
	if _, err := f.WriteAt([]byte{1}, 126); err != nil {
		t.Fatal(err)
	}
	if found, err = Probe(f, 320*mib); err != nil || !found[0].Making {
		t.Fatalf("while it is made: %+v, %v", found, err)
	}
}

// put is content at an offset; below 0: from the end.
type put struct {
	at int64
	b  string
}

func le32(v uint32) string { return string(binary.LittleEndian.AppendUint32(nil, v)) }
func be32(v uint32) string { return string(binary.BigEndian.AppendUint32(nil, v)) }

// gpt is a header of a partition table without entries, for 512-byte sectors.
func gpt(lba, other, last, entries int64) string {
	h := make([]byte, 92)
	copy(h, "EFI PART\x00\x00\x01\x00\x5c\x00\x00\x00")
	binary.LittleEndian.PutUint64(h[24:], uint64(lba))
	binary.LittleEndian.PutUint64(h[32:], uint64(other))
	binary.LittleEndian.PutUint64(h[40:], 34)
	binary.LittleEndian.PutUint64(h[48:], uint64(last-34))
	h[56] = 1 // of the disk's GUID
	binary.LittleEndian.PutUint64(h[72:], uint64(entries))
	binary.LittleEndian.PutUint32(h[80:], 128)
	binary.LittleEndian.PutUint32(h[84:], 128)
	binary.LittleEndian.PutUint32(h[88:], crc32.ChecksumIEEE(make([]byte, 128*128)))
	binary.LittleEndian.PutUint32(h[16:], crc32.ChecksumIEEE(h))
	return string(h)
}

// TestFormats looks at headers written here from the formats' documents. Where blkid
// needs no more than that header, it has to agree.
func TestFormats(t *testing.T) {
	const size = 300 * mib
	const last = size/512 - 1
	entry := func(kind byte) put {
		return put{446, string([]byte{0, 0, 2, 0, kind, 0, 0, 0, 1, 0, 0, 0, 0xff, 0xff, 8, 0})}
	}
	boot := put{510, "\x55\xaa"}
	for _, c := range []struct {
		name, want, blkid string
		puts              []put
	}{
		{"MBR", "MBR partition table", "dos", []put{entry(0x83), boot}},
		{"boot sector", "boot sector", "-", []put{{0, "\xeb\x3c"}, boot}},
		{"GPT", "GPT partition table, GPT partition table (copy at the end), MBR partition table", "gpt",
			[]put{entry(0xee), boot, {512, gpt(1, last, last, 2)}, {-512, gpt(last, 1, last, last-32)}}},
		{"backup of a GPT alone", "GPT partition table (copy at the end)", "-", []put{{-512, gpt(last, 1, last, last-32)}}},
		{"GPT of 4 KiB sectors", "GPT partition table", "-", []put{{4096, "EFI PART"}}},
		{"backup of a GPT of 4 KiB sectors", "GPT partition table (copy at the end)", "-", []put{{-4096, "EFI PART"}}},
		{"MD 0.90", "member of an MD RAID", "linux_raid_member", []put{{size - 64<<10, le32(0xa92b4efc) + le32(0) + le32(90)}}},
		{"MD 0.90 of the other order of bytes", "member of an MD RAID", "linux_raid_member", []put{{size - 64<<10, be32(0xa92b4efc) + be32(0) + be32(90)}}},
		{"MD 1.0", "member of an MD RAID", "linux_raid_member", []put{{size - 8192, le32(0xa92b4efc) + le32(1)}, {size - 8192 + 144, le32(size/512 - 16)}}},
		{"MD 1.1", "member of an MD RAID", "linux_raid_member", []put{{0, le32(0xa92b4efc) + le32(1)}}},
		{"MD 1.2", "member of an MD RAID", "linux_raid_member", []put{{4096, le32(0xa92b4efc) + le32(1)}, {4096 + 144, le32(8)}}},
		{"LVM", "LVM physical volume", "-", []put{{512, "LABELONE\x01"}}},
		{"LVM in the fourth sector", "LVM physical volume", "-", []put{{3 * 512, "LABELONE\x03"}}},
		{"LUKS1", "LUKS encrypted data", "crypto_LUKS", []put{{0, "LUKS\xba\xbe\x00\x01"}, {168, "0085ffc3-c330-4a54-88f3-ce812afee08d"}}},
		{"second header of LUKS2", "LUKS encrypted data (second header)", "-", []put{{0x400000, "SKUL\xba\xbe\x00\x02"}}},
		{"bluestore", "Ceph bluestore OSD", "ceph_bluestore", []put{{0, "bluestore block device\n0085ffc3-c330-4a54-88f3-ce812afee08d\n"}}},
		{"btrfs", "btrfs file system", "-", []put{{64<<10 + 64, "_BHRfS_M"}}},
		{"second superblock of btrfs", "btrfs file system", "-", []put{{64<<20 + 64, "_BHRfS_M"}}},
		{"first label of ZFS", "ZFS pool member", "-", []put{{128 << 10, "\x0c\xb1\xba\x00\x00\x00\x00\x00"}}},
		{"last label of ZFS, of the other order of bytes", "ZFS pool member", "-", []put{{size - 128<<10 + 5<<10, "\x00\x00\x00\x00\x00\xba\xb1\x0c"}}},
		{"NTFS", "NTFS file system, boot sector", "-", []put{{3, "NTFS    "}, boot}},
		{"exFAT", "exFAT file system, boot sector", "-", []put{{3, "EXFAT   "}, boot}},
		{"FAT16", "FAT file system, boot sector", "-", []put{{54, "FAT16   "}, boot}},
		{"FAT32", "FAT file system, boot sector", "-", []put{{82, "FAT32   "}, boot}},
		{"BitLocker", "BitLocker encrypted data", "-", []put{{3, "-FVE-FS-"}}},
		{"APFS", "APFS container", "-", []put{{32, "NXSB"}}},
		{"f2fs", "f2fs file system", "-", []put{{1024, le32(0xf2f52010)}}},
		{"bcache", "bcache device", "-", []put{{4096 + 24, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"}}},
		{"ISO 9660", "ISO 9660 file system", "-", []put{{32<<10 + 1, "CD001"}}},
		{"VMFS", "VMFS volume", "-", []put{{mib, le32(0xc001d00d)}}},
		{"Intel RAID", "member of an Intel RAID", "-", []put{{-1024, "Intel Raid ISM Cfg Sig. 1.1.00"}}},
		{"DDF", "member of a DDF RAID", "-", []put{{-512, be32(0xde11de11)}}},
		{"suspended", "a suspended system", "-", []put{{4096 - 10, "S1SUSPEND\x00"}}},
		{"a byte of nobody's", "unknown data in the first MiB", "", []put{{mib - 1, "x"}}},
		{"a byte of nobody's at the end", "unknown data in the last MiB", "", []put{{-1, "\xff"}}},
		{"a byte between the edges", "", "", []put{{150 * mib, "x"}}},
		{"blank", "", "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := image(t, size)
			for _, p := range c.puts {
				if p.at < 0 {
					p.at += size
				}
				if _, err := f.WriteAt([]byte(p.b), p.at); err != nil {
					t.Fatal(err)
				}
			}
			found, err := Probe(f, size)
			if err != nil || words(found) != c.want {
				t.Errorf("found %q, %v, not %q", words(found), err, c.want)
			}
			if c.blkid != "-" {
				if got := blkid(t, f); got != c.blkid {
					t.Errorf("blkid says %q, not %q", got, c.blkid)
				}
			}
			eraseLeavesNothing(t, f, size)
		})
	}
}

// TestExcept: what is known is not a finding, what touches it is.
func TestExcept(t *testing.T) {
	const size = 4 * mib
	f := image(t, size)
	if _, err := f.WriteAt([]byte("xxxx"), 3*mib+10); err != nil {
		t.Fatal(err)
	}
	for off, want := range map[int64]string{10: "", 9: Unknown + " in the last MiB", 11: Unknown + " in the last MiB"} {
		if found, err := ProbeExcept(f, size, 3*mib+off, 4); err != nil || words(found) != want {
			t.Errorf("but for 4 bytes at %d: %v, %v", off, found, err)
		}
	}
}

// broken fails to read beyond the first MiB.
type broken struct{ io.ReaderAt }

func (b broken) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > mib {
		return 0, fmt.Errorf("medium error")
	}
	return b.ReaderAt.ReadAt(p, off)
}

// TestUnreadable: a device that cannot be read is not blank.
func TestUnreadable(t *testing.T) {
	if found, err := Probe(broken{bytes.NewReader(make([]byte, 3*mib))}, 3*mib); err == nil {
		t.Errorf("found %v", found)
	}
	if _, err := Probe(bytes.NewReader(make([]byte, mib)), 3*mib); err == nil {
		t.Error("a device shorter than its size was taken for blank")
	}
}

// FuzzProbe: content at the edges is always found, whatever the sizes.
func FuzzProbe(f *testing.F) {
	f.Add([]byte("XFSB"), 0)
	f.Add([]byte("EFI PART"), 512)
	f.Add([]byte{}, 8191)
	f.Fuzz(func(t *testing.T, b []byte, size int) {
		if size < 0 || size > 3*mib {
			return
		}
		disk := make([]byte, size)
		n := copy(disk, b)
		found, err := Probe(bytes.NewReader(disk), int64(size))
		if err != nil {
			t.Fatal(err)
		}
		if blank := len(bytes.Trim(disk[:min(n, mib)], "\x00")) == 0; blank == (len(found) > 0) && n <= mib {
			t.Errorf("blank %v, found %v", blank, found)
		}
		for _, x := range found {
			if x.Offset < 0 || x.Length <= 0 || x.Offset+x.Length > int64(size) {
				t.Errorf("%+v lies outside of %d bytes", x, size)
			}
		}
	})
}
